"""Trains learners with many settings in one pass over the features."""
