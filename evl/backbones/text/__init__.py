"""Text towers: class names → directions among image embeddings."""
