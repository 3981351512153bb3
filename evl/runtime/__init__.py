"""Helpers for all rooms: files, processes, precision, memory, progress."""
