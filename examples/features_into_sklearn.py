"""Vectors of a frozen encoder into a classifier of scikit-learn: pip install scikit-learn

python examples/features_into_sklearn.py VIDEOS     # a folder with a folder per class
"""

import sys

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

import evl

BACKBONE = "evl_clip_tiny"  # very small, for first steps; evl.list_backbones("clip") lists the others


def main(videos: str) -> float:
    samples = evl.read_manifest(videos).samples
    vectors = evl.embed(BACKBONE, samples)  # (n,D)
    labels = [sample.label for sample in samples]
    scores = cross_val_score(LogisticRegression(max_iter=1000), vectors, labels, cv=3)
    print(f"{len(samples)} videos, {vectors.shape[1]} numbers each: {100 * scores.mean():.1f} % right")
    return float(scores.mean())


if __name__ == "__main__":
    main(sys.argv[1])
