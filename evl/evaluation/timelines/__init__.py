"""Timelines against labeled segments: what was found, and when."""
