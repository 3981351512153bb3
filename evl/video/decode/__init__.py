"""A file or a folder of pictures → frames: exact, by number."""
