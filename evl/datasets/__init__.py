"""Data sets that evl makes itself."""
