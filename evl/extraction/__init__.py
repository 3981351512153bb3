"""Videos → a store of features."""
