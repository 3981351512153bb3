"""Many small trainings on a few videos per class."""
