"""Video files → frames and views: sampling, decoding, transforms, augmentation."""
