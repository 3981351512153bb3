"""Checks whole collections of videos, and prepares copies of them that are fast to read."""
