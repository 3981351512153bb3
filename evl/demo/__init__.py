"""A whole run in miniature, with videos made on the spot."""
