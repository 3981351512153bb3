"""Lists of labeled videos: manifests, folders and annotations → samples."""
