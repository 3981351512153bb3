"""The version of evl: a leaf, so that every file may say it."""

__version__ = "0.1.0"
