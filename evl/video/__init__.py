"""A file → frames: reading, sampling, transforms, augmentation, views."""
