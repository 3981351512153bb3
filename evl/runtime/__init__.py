"""Helpers for all rooms: files, processes, precision, memory, the time left."""
