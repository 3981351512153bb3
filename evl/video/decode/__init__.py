"""Video files and folders of pictures → exact frames, by number."""
