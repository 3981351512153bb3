"""What is held out for validation: whole files or groups, of every class, near the share that was asked for."""

import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from evl.data.draw import split_samples, unit_of
from evl.errors import DataError
from evl.types import Sample


def recordings(num_files, num_classes):
    """Every file holds each class once, at times of its own."""
    return [
        Sample(f"/v/{i:03}.mp4", f"c{y:02}", 2.0 * y, 2.0 * y + 1) for i in range(num_files) for y in range(num_classes)
    ]


def draw(samples, val_fraction=0.2, seed=0):
    """(train, val), after a look at what must hold whatever is drawn."""
    train, val = split_samples(samples, val_fraction=val_fraction, seed=seed)
    assert sorted((*train, *val), key=str) == sorted(samples, key=str)
    assert not {unit_of(sample) for sample in train} & {unit_of(sample) for sample in val}
    assert {sample.label for sample in train} == {sample.label for sample in samples}
    return train, val


@pytest.mark.parametrize(("files", "classes"), [(30, 10), (60, 20), (25, 1), (10, 400)])
def test_recordings_that_hold_every_class(files, classes):
    train, val = draw(recordings(files, classes))
    assert (len(train), len(val)) == (files * classes * 4 // 5, files * classes // 5)
    assert set(Counter(sample.label for sample in val).values()) == {files // 5}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_recordings_that_hold_some_classes(seed, fraction):
    rng = random.Random(seed)
    even = [Sample(f"{i}.mp4", f"c{rng.randrange(12)}", j, j + 1.0) for i in range(50) for j in range(10)]
    uneven = [
        Sample(f"{i}.mp4", f"c{rng.randrange(12)}", j, j + 1.0) for i in range(50) for j in range(rng.randrange(1, 40))
    ]
    for samples in (even, uneven):
        val = draw(samples, fraction, seed)[1]
        assert abs(len(val) / len(samples) - fraction) < 0.04
        assert {sample.label for sample in val} == {sample.label for sample in samples}


def test_a_long_recording_does_not_become_the_validation():
    samples = [Sample("long.mp4", "a", float(j), j + 1.0) for j in range(100)]
    samples += [Sample(f"{y}{i}.mp4", y) for y in "ab" for i in range(9)]
    for seed in range(10):
        train, val = draw(samples, seed=seed)
        assert "long.mp4" in {sample.path for sample in train}
        assert {"a", "b"} == {sample.label for sample in val}


def test_a_rare_class_is_held_out_where_it_can_be():
    """Two of thirty recordings have it, one each; one recording alone has another, and stays in training."""
    samples = recordings(30, 5)
    samples += [Sample(f"/v/{i:03}.mp4", "rare", 90.0) for i in (3, 17)] + [Sample("/v/008.mp4", "alone", 90.0)] * 2
    for seed in range(10):
        val = draw(samples, seed=seed)[1]
        counts = Counter(sample.label for sample in val)
        assert counts["rare"] == 1
        assert counts["alone"] == 0
        assert [counts[f"c{y:02}"] for y in range(5)] == [6] * 5


@pytest.mark.parametrize("files", [2, 3, 4])
def test_few_recordings_of_many_rows(files):
    """One of them validates, whatever its share: never more than half of a class."""
    samples = [Sample(f"{i}.mp4", f"c{j % 3}", j, j + 1.0) for i in range(files) for j in range(60)]
    assert len(draw(samples)[1]) == 60


def test_groups_are_not_divided():
    """Twelve people, each of whom does everything several times, in files of their own."""
    samples = [
        Sample(f"{y}/{who}_{i}.mp4", y, group=f"person {who}") for who in range(12) for y in "abc" for i in range(4)
    ]
    _, val = draw(samples, 0.25)
    assert len({sample.group for sample in val}) == 3
    assert Counter(sample.label for sample in val) == {"a": 12, "b": 12, "c": 12}
    without = [Sample(sample.path, sample.label) for sample in samples]
    people = [{sample.path.split("/")[1].split("_")[0] for sample in half} for half in draw(without, 0.25)]
    assert people[0] & people[1]  # which is what groups are for


def test_a_group_may_have_the_name_of_a_file():
    samples = [Sample(f"{i}.mp4", "ab"[i % 2], group=f"{i // 4}.mp4") for i in range(40)]
    draw(samples)


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (recordings(1, 10), r"all 10 rows are of one file, /v/000\.mp4\. A file is never divided\. Give more files"),
        ([Sample("a.mp4", "x", 0.0, 1.0), Sample("a.mp4", "x", 1.0, 2.0)], "all 2 rows are of one file"),
        ([Sample(f"{i}.mp4", y, group="cam") for i in range(9) for y in "ab"], "one group, cam.*other groups"),
        # each recording has a class of its own
        (
            [Sample(f"{i}.mp4", y) for i in range(5) for y in ("all", f"only {i}")],
            "'only 0', for example, is only in 0.mp4",
        ),
        # groups that are classes
        ([Sample(f"{y}/{i}.mp4", y, group=y) for i in range(9) for y in "ab"], "'a', for example, is only in a"),
    ],
)
def test_where_nothing_can_be_held_out(samples, sentence):
    with pytest.raises(DataError, match=f"no validation videos can be drawn: .*{sentence}"):
        split_samples(samples, val_fraction=0.2, seed=0)


def test_a_file_a_class_is_only_trained_on():
    samples = [Sample("a.mp4", "a"), Sample("b.mp4", "b")]
    assert split_samples(samples, val_fraction=0.2, seed=0) == (tuple(samples), ())
    assert split_samples([], val_fraction=0.2, seed=0) == ((), ())


def test_the_draw_follows_from_the_seed_not_from_the_order():
    samples = recordings(30, 10)
    _, val = split_samples(samples, val_fraction=0.2, seed=3)
    assert set(split_samples(samples[::-1], val_fraction=0.2, seed=3)[1]) == set(val)
    assert len({frozenset(split_samples(samples, val_fraction=0.2, seed=seed)[1]) for seed in range(20)}) > 15


def test_one_label_a_file_is_drawn_class_by_class():
    """A class after the other gives the first of its files in a random order: what evl has always drawn there."""
    rng = random.Random(0)
    for seed in range(200):
        fraction = rng.choice([0.05, 0.1, 0.2, 0.25, 0.34, 0.5, 0.7, 0.9])
        samples = [
            Sample(f"{y}/{i}", f"c{y}") for y in range(rng.randrange(1, 12)) for i in range(rng.randrange(2, 40))
        ]
        rng.shuffle(samples)
        files = defaultdict(set)
        for sample in samples:
            files[sample.label].add(sample.path)
        generator, expected = np.random.default_rng(seed), set()
        for label in sorted(files):
            paths = sorted(files[label])
            count = min(max(round(len(paths) * fraction), 1), len(paths) - 1)
            expected |= {paths[i] for i in generator.permutation(len(paths))[:count]}
        assert {sample.path for sample in draw(samples, fraction, seed)[1]} == expected


@pytest.mark.slow
def test_a_quarter_of_a_million_rows_take_a_moment():
    import time

    rng = random.Random(0)
    flat = [Sample(f"{i}.mp4", f"c{i % 1000}") for i in range(250_000)]
    nested = [Sample(f"{i // 2500}.mp4", f"c{rng.randrange(1000)}", i, i + 1.0) for i in range(250_000)]
    for samples in (flat, nested):
        started = time.process_time()
        _, val = split_samples(samples, val_fraction=0.2, seed=0)
        assert time.process_time() - started < 20  # it takes about one second
        assert abs(len(val) - 50_000) < 2500
