"""Weights files and downloads → tensors of a model."""
