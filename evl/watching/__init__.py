"""Cameras, streams, pipes and folders → events."""
