"""The data set `motions` on disk: seeds, balance, disjoint pictures, manifests."""

import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from evl.data.manifests.manifest import read_manifest
from evl.datasets.drawing import SPLITS, category_names, load_objects
from evl.datasets.motions import RATE_FACTORS, choose_objects, draw_motion, encode, make_motions, plan
from evl.datasets.templates import NUM_FRAMES, SIZE, TEMPLATES
from evl.errors import ConfigError
from evl.video.decode.reader import read_clip
from tests.helpers import Wanted, run_command


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, what ``progress`` heard) of a small set, made by two processes."""
    folder, heard = tmp_path_factory.mktemp("motions"), []
    make_motions(folder, {"train": 33, "test": 18}, seed=4, workers=2, progress=lambda *counts: heard.append(counts))
    return folder, heard


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_files_whatever_the_workers(made, tmp_path):
    make_motions(tmp_path, {"train": 33, "test": 18}, seed=4, workers=0)
    assert files(tmp_path) == files(made[0])
    assert len(files(tmp_path)) == 33 + 18 + 2  # nothing unfinished lies about


def test_another_seed_makes_other_videos(made, tmp_path):
    make_motions(tmp_path, {"train": 2}, seed=5, workers=0)
    before = set(files(made[0]).values())
    assert not before & set(files(tmp_path).values())


def test_a_set_that_is_not_finished_has_no_manifest(made, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    make_motions(tmp_path, {"val": 2}, workers=0)
    with pytest.raises(KeyboardInterrupt):
        make_motions(tmp_path, {"val": 20}, seed=1, workers=2, progress=stop)
    assert not list(tmp_path.glob("*.csv"))
    assert list(tmp_path.glob("videos/val/*.mp4"))


def test_progress_hears_every_video(made):
    counts = [done for done, _ in made[1]]
    assert counts == sorted(counts)
    assert made[1][-1] == (51, 51)


def test_manifests_are_evls_own(made):
    folder, _ = made
    motion, kind = (read_manifest(folder / name) for name in ("motion.csv", "object.csv"))
    assert set(motion.splits) == {"train", "val"}  # test videos are what training judges by, where there are no others
    assert motion.class_names == tuple(sorted(TEMPLATES))
    assert kind.class_names == category_names()
    assert [s.path for s in motion.samples] == [s.path for s in kind.samples]
    pairs = [(a.label, b.label) for a, b in zip(motion.splits["val"], kind.splits["val"], strict=True)]
    assert pairs == plan("test", 18, seed=4)
    assert not motion.missing


def test_with_videos_to_choose_by_splits_keep_their_names(tmp_path):
    make_motions(tmp_path, {"train": 3, "val": 2, "test": 1}, workers=0)
    splits = read_manifest(tmp_path / "object.csv").splits
    assert {name: len(samples) for name, samples in splits.items()} == {"train": 3, "val": 2, "test": 1}
    assert "videos/test/000000.mp4" in splits["test"][0].path


def test_evl_check_finds_them_good(made, capsys):
    code, out, _ = run_command(capsys, "check", made[0] / "motion.csv")
    assert code == 0
    assert "51 good" in out


@pytest.mark.parametrize("count", [112, 60, 333])
def test_classes_are_balanced(count):
    pairs = plan("train", count)
    for names, place in ((TEMPLATES, 0), (category_names(), 1)):
        numbers = Counter(pair[place] for pair in pairs)
        assert set(numbers) == set(names)
        assert max(numbers.values()) - min(numbers.values()) <= 1


def test_motion_says_nothing_of_the_object():
    once = len(TEMPLATES) * len(category_names())
    assert set(Counter(plan("val", 3 * once)).values()) == {3}
    assert plan("val", 3 * once)[:50] == plan("val", 50)
    assert plan("val", once) != plan("test", once)
    for block in pairwise(range(0, 3 * once + 1, once)):
        assert len(set(plan("val", 3 * once)[slice(*block)])) == once


def test_objects_and_artists_are_disjoint():
    found = {split: load_objects(split) for split in SPLITS}
    for split, other in (("train", "val"), ("train", "test"), ("val", "test")):
        for key in ("name", "artist"):
            assert not {getattr(t, key) for t in found[split]} & {getattr(t, key) for t in found[other]}
    for things in found.values():
        numbers = Counter(thing.category for thing in things)
        assert set(numbers) == set(category_names())
        assert len(category_names()) == 8
        assert min(numbers.values()) >= 2
        for thing in things:
            assert thing.picture.shape == (48, 48, 4)
            assert 0.1 < thing.reach.max() < 0.75


def test_objects_of_a_video_are_of_one_kind():
    for split in SPLITS:
        for category in category_names():
            things = choose_objects(split, category, 4, np.random.default_rng(0))
            assert len(things) == 4
            assert {thing.category for thing in things} == {category}
            assert things[0] is not things[1]
            assert things[0].shows_turning
            wanted = min(4, sum(thing.category == category for thing in load_objects(split)))
            assert len(set(map(id, things))) == wanted


def test_file_holds_the_frames_that_were_drawn(tmp_path):
    frames, rate_factor, _ = draw_motion("something appearing", "animal", "val", 7)
    assert RATE_FACTORS[0] <= rate_factor <= RATE_FACTORS[1]
    assert NUM_FRAMES[0] <= len(frames) <= NUM_FRAMES[1]
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(frames, 20))
    read, *_ = read_clip(str(path), Wanted(lambda count: list(range(count))))
    wanted = np.stack(frames).transpose(0, 3, 1, 2)
    assert read.shape == (len(frames), 3, SIZE, SIZE)
    assert np.abs(read.numpy().astype(float) - wanted).mean() < 8  # noise is coded roughly, colours at half the size


def test_what_cannot_be_made_is_told(tmp_path):
    for counts, message in (({"train": -1}, "-1 videos"), ({"best": 3}, "'best'"), ({"train": 0}, "no videos")):
        with pytest.raises(ConfigError, match=message):
            make_motions(tmp_path, counts)
    with pytest.raises(ConfigError, match="-2 workers"):
        make_motions(tmp_path, {"train": 1}, workers=-2)
    with pytest.raises(ConfigError, match="'best'"):
        load_objects("best")
    assert not list(tmp_path.iterdir())


def test_drawing_does_without_torch():
    code = "import sys, evl.datasets.motions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
