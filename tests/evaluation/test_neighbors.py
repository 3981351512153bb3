"""Nearest neighbors against loops that say what is meant."""

import math

import numpy as np
import pytest

from evl.evaluation import neighbor_scores


def plain(queries, labels, gallery, gallery_labels, groups, alone):
    """The same in percents, video by video."""
    hits, precisions, votes, chance = {1: 0, 5: 0, 10: 0}, [], 0, []
    for i, query in enumerate(queries):
        ranked = []
        for j, other in enumerate(gallery):
            if alone and groups[i] == groups[j]:
                continue
            cosine = sum(a * b for a, b in zip(query, other, strict=True)) / math.hypot(*query) / math.hypot(*other)
            ranked.append((-cosine, j))
        ranked.sort()
        right = [gallery_labels[j] == labels[i] for _, j in ranked]
        for k in hits:
            hits[k] += any(right[:k])
        found = [(sum(right[: n + 1])) / (n + 1) for n, one in enumerate(right) if one]
        precisions.append(sum(found) / len(found) if found else 0.0)
        weights = {}
        for cosine, j in ranked[:20]:
            weights[gallery_labels[j]] = weights.get(gallery_labels[j], 0) + math.exp(-cosine / 0.07)
        votes += max(sorted(weights), key=weights.get) == labels[i]
        chance.append(sum(right) / len(right))
    n = len(queries)
    recall = {k: 100 * count / n for k, count in hits.items()}
    return recall, 100 * votes / n, 100 * sum(precisions) / n, 100 * sum(chance) / n


@pytest.mark.parametrize(("n", "parts"), [(37, 1), (300, 1), (41, 3)])
def test_leave_one_out_is_what_loops_find(n, parts):
    rng = np.random.default_rng()
    labels = rng.integers(0, 5, n).tolist()
    vectors = rng.normal(size=(n, 7)) + np.eye(7)[labels]
    groups = [f"video {i // parts}" for i in range(n)]
    got = neighbor_scores(vectors, labels, groups=groups)
    recall, vote, precision, chance = plain(vectors.tolist(), labels, vectors.tolist(), labels, groups, True)
    assert got.recall == pytest.approx(recall)
    assert (got.vote, got.mean_average_precision, got.chance) == pytest.approx((vote, precision, chance))
    assert (got.num_queries, got.num_gallery) == (n, n)


def test_queries_against_a_gallery():
    rng = np.random.default_rng()
    labels, others = rng.integers(0, 4, 1).tolist(), rng.integers(0, 4, 60).tolist()
    queries, gallery = rng.normal(size=(1, 5)), rng.normal(size=(60, 5))
    got = neighbor_scores(queries, labels, gallery=gallery, gallery_labels=others)
    recall, vote, precision, chance = plain(queries.tolist(), labels, gallery.tolist(), others, None, False)
    assert got.recall == pytest.approx(recall)
    assert (got.vote, got.mean_average_precision, got.chance) == pytest.approx((vote, precision, chance))


def test_a_class_of_one_video_is_a_miss_and_is_told():
    vectors = np.array([[1.0, 0], [1, 0.5], [0, 1]])
    got = neighbor_scores(vectors, [0, 0, 1])
    assert got.num_alone == 1
    assert got.recall[1] == pytest.approx(200 / 3)
    assert got.recall[10] == pytest.approx(200 / 3)


def test_parts_of_one_file_do_not_find_each_other():
    vectors = np.array([[1.0, 0], [1, 0.01], [0, 1], [0, 1]])
    labels = [0, 0, 1, 0]
    assert neighbor_scores(vectors, labels).recall[1] == 50
    assert neighbor_scores(vectors, labels, groups=["a", "a", "b", "c"]).recall[1] == 0
    apart = neighbor_scores(vectors[:2], labels[:2], groups=["a", "a"])
    assert apart.recall[1] == 0
    assert apart.num_alone == 2
    assert apart.vote == 0


@pytest.mark.parametrize(
    ("vectors", "labels"),
    [(np.zeros((1, 3)), [0]), (np.full((2, 3), np.nan), [0, 1]), (np.zeros((2, 3)), [0]), (np.zeros(4), [0] * 4)],
)
def test_what_cannot_be_judged_is_refused(vectors, labels):
    with pytest.raises(ValueError, match=r"expected|neighbor"):
        neighbor_scores(vectors, labels)


def test_vectors_of_zeros_are_near_to_nothing():
    got = neighbor_scores(np.array([[0.0, 0], [1, 0], [1, 0.1]]), [0, 1, 1])
    assert got.recall[1] == pytest.approx(200 / 3)
