"""Work on whole collections of videos: checking them, and preparing copies that are cheap to read."""
