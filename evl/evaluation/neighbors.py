"""How well vectors find their like: nearest neighbors and retrieval, by cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from evl.evaluation.metrics import wilson_interval

VOTERS, TEMPERATURE = 20, 0.07  # of the vote, as DINO has them (Caron et al., arXiv:2104.14294)
RANKS = (1, 5, 10)
AT_ONCE = 256  # queries whose similarities to the whole gallery are in memory together


@dataclass(frozen=True)
class NeighborScores:
    """In percent of the queries. ``recall[k]``: one of the k nearest has the class (``recall[1]`` is top-1 by the
    nearest neighbor, with its 95 % interval). ``vote``: top-1 of the 20 nearest, weighted by exp(cosine / 0.07).
    ``mean_average_precision``: of the whole gallery, ranked. ``chance``: top-1 of a neighbor drawn blindly.
    ``num_alone``: queries of whose class the gallery has no other video, which count as misses."""

    recall: dict[int, float]
    top1_interval: tuple[float, float]
    vote: float
    mean_average_precision: float
    chance: float
    num_queries: int
    num_gallery: int
    num_alone: int

    def to_dict(self) -> dict:
        return {**asdict(self), "recall": {str(k): value for k, value in self.recall.items()}}


def neighbor_scores(
    queries: np.ndarray,
    labels: Sequence[int],
    *,
    gallery: np.ndarray | None = None,
    gallery_labels: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
) -> NeighborScores:
    """Every query (n,D) against the gallery (m,D); without one, against all other queries (leave one out).

    ``groups``: what a query must not find, such as its own file, where several parts of one are among the queries
    (leave one out only). Of equal cosines the earlier vector is nearer. ValueError for shapes that do not fit, and
    for vectors that are not finite.
    """
    alone = gallery is None
    gallery, gallery_labels = (queries, labels) if alone else (gallery, gallery_labels)
    queries, gallery = (_unit(vectors) for vectors in (queries, gallery))
    labels, gallery_labels = np.asarray(labels), np.asarray(gallery_labels)
    if len(queries) != len(labels) or len(gallery) != len(gallery_labels) or queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{queries.shape} queries with {len(labels)} labels, {gallery.shape} vectors of the gallery with "
            f"{len(gallery_labels)}: expected a label each, and vectors of one width"
        )
    if len(gallery) < 1 + alone or not len(queries):
        raise ValueError(f"{len(queries)} queries and {len(gallery)} in the gallery: there is no neighbor to be found")
    groups = np.arange(len(queries)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    firsts, votes, precisions, shares = [], [], [], []
    for start in range(0, len(queries), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        similarity = queries[part] @ gallery.T
        allowed = groups[part, None] != groups[None] if alone else np.ones_like(similarity, dtype=bool)
        similarity = np.where(allowed, similarity, -np.inf)
        order = np.argsort(-similarity, axis=1, kind="stable")
        right = (gallery_labels[order] == labels[part, None]) & np.take_along_axis(allowed, order, 1)
        counts = right.sum(1)
        firsts.append(np.where(counts > 0, right.argmax(1), np.iinfo(np.int64).max))
        places = np.arange(1, right.shape[1] + 1)
        precisions.append((right.cumsum(1) / places * right).sum(1) / np.maximum(counts, 1))
        shares.append(counts / np.maximum(allowed.sum(1), 1))
        votes.append(_voted(similarity, order[:, :VOTERS], gallery_labels) == labels[part])
    first, vote, precision, share = (np.concatenate(parts) for parts in (firsts, votes, precisions, shares))
    return NeighborScores(
        recall={k: 100 * float((first < k).mean()) for k in RANKS},
        top1_interval=wilson_interval(int((first < 1).sum()), len(first)),
        vote=100 * float(vote.mean()),
        mean_average_precision=100 * float(precision.mean()),
        chance=100 * float(share.mean()),
        num_queries=len(queries),
        num_gallery=len(gallery),
        num_alone=int((share == 0).sum()),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError(f"vectors of shape {vectors.shape}: expected (n,D), all finite")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _voted(similarity: np.ndarray, nearest: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """The class with the most weight among the nearest of each query, the smaller of equals; −1 where nobody may."""
    weights = np.exp(np.take_along_axis(similarity, nearest, 1) / TEMPERATURE)  # 0 for what is not allowed
    votes = np.zeros((len(nearest), gallery_labels.max() + 1))
    np.add.at(votes, (np.arange(len(nearest))[:, None], gallery_labels[nearest]), weights)
    return np.where(votes.any(1), votes.argmax(1), -1)
