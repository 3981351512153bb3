"""Many settings trained on one reading of the features."""
