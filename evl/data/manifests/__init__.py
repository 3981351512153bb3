"""Turns manifests, folders and published lists into samples."""
