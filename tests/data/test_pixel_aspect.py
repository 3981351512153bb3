"""Pixels that are not square (data.pixel_aspect) on every road: a circle is round, and saved models keep their way."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

import evl
from evl.collections.copy_video import CopySettings, prepare_video
from evl.config import ClipConfig, RunConfig, replace
from evl.data.dataset import Files, TrainingClips
from evl.errors import StoreError
from evl.evaluation import evaluate_views, load_for_store, views_of_store
from evl.extraction.extract import extract
from evl.extraction.verify import verify_store
from evl.recipes import RECIPES, get_recipe
from evl.saving import build_classifier
from evl.store import FeatureStore, StoreOptions
from evl.training import train
from evl.types import Sample
from evl.video.decode.reader import read_clip
from evl.video.decode.rgb import squared
from tests.boxes import rewrite_boxes, words
from tests.conftest import TINY
from tests.helpers import Wanted

VIEWS = dict(num_frames=2, stride=1, num_clips=1, num_crops=1, size=(120, 120), mean=(0.0,) * 3, std=(1 / 255,) * 3)


def circle(width, height, shape):
    """(height,width,3): a bright disk that is round where a pixel is ``shape`` times as wide as high."""
    y, x = np.mgrid[:height, :width]
    x, y = (x + 0.5 - width / 2) * float(shape), y + 0.5 - height / 2
    radius = 0.35 * min(width * float(shape), height)
    return np.where(x**2 + y**2 < radius**2, 235, 20)[..., None].repeat(3, 2).astype(np.uint8)


def write(path, shape, *, width=160, height=120, codec="libx264", count=8, claim=None, picture=None, **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={k: str(v) for k, v in options.items()})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.sample_aspect_ratio = claim or shape
        for _ in range(count):
            picture = circle(width, height, shape) if picture is None else picture
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def roundness(pixels):
    """Width over height of the bright disk in a picture (3,H,W)."""
    bright = (pixels.float()[0] > 128).numpy()
    return np.ptp(np.flatnonzero(bright.any(0))) / np.ptp(np.flatnonzero(bright.any(1)))


@pytest.mark.parametrize("shape", [Fraction(16, 15), Fraction(8, 9), Fraction(4, 3), Fraction(64, 45), Fraction(1, 2)])
@pytest.mark.parametrize(("codec", "ending"), [("libx264", "mp4"), ("libx264", "ts"), ("mpeg4", "avi")])
def test_circles_are_round(tmp_path, shape, codec, ending):
    path = write(tmp_path / f"circle.{ending}", shape, codec=codec)
    stored, shown = (
        read_clip(path, Wanted(lambda count: [0, count - 1]), square_pixels=square).frames for square in (False, True)
    )
    assert stored.shape[-2:] == (120, 160)
    assert shown.shape[-2:] == (120, round(160 * shape))
    assert roundness(stored[0]) == pytest.approx(1 / float(shape), rel=0.04)
    assert roundness(shown[0]) == pytest.approx(1, rel=0.04)
    assert roundness(evl.read_views(path, **VIEWS, pixel_aspect=True)[0, 0]) == pytest.approx(1, rel=0.04)
    assert roundness(evl.read_views(path, **VIEWS)[0, 0]) == pytest.approx(1 / float(shape), rel=0.04)
    clip = ClipConfig(num_frames=2, stride=1)
    dataset = TrainingClips(Files([Sample(path)]), [0], clip, lambda frames, _: frames, 0, square_pixels=True)
    assert roundness(dataset[(0, 0)].pixels[0]) == pytest.approx(1, rel=0.04)


def test_square_pixels_and_unsaid_ones_change_no_byte(tmp_path):
    for name, shape in (("one", Fraction(1)), ("none", Fraction(0, 1))):
        path = write(tmp_path / f"{name}.mp4", Fraction(1), claim=shape)
        plain = read_clip(path, Wanted(range)).frames
        assert torch.equal(read_clip(path, Wanted(range), square_pixels=True).frames, plain)


def test_a_turned_video_is_widened_before_it_is_turned(tmp_path):
    path = tmp_path / "turned.mp4"
    write(path, Fraction(4, 3))
    matrix = words(0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(
        rewrite_boxes(path.read_bytes(), lambda kind, body: body[:40] + matrix + body[76:] if kind == b"tkhd" else body)
    )
    frames = read_clip(str(path), Wanted(lambda count: [0]), square_pixels=True).frames
    assert frames.shape[-2:] == (213, 120)
    assert roundness(frames[0]) == pytest.approx(1, rel=0.04)


def test_claims_that_nobody_can_believe_are_left_out(tmp_path):
    path = tmp_path / "claim.mp4"
    write(path, Fraction(4, 3))
    data = path.read_bytes()
    at = data.index(b"pasp") + 4
    for wide, high in ((3_000_000, 1), (1, 5), (0, 0), (1, 1)):  # the container's word comes before the codec's
        path.write_bytes(data[:at] + words(wide, high) + data[at + 8 :])
        width = 213 if wide == 0 else 160  # nothing said: the codec's
        frames = read_clip(str(path), Wanted(lambda count: [0]), square_pixels=True).frames
        assert frames.shape[-2:] == (120, width), (wide, high)


def test_no_picture_grows_beyond_what_is_read():
    assert squared(720, 576, Fraction(16, 15)) == (768, 576)
    assert squared(720, 480, Fraction(8, 9)) == (640, 480)
    assert squared(7680, 4320, Fraction(2)) == (7680, 2160)
    assert squared(1, 1, Fraction(1, 4)) == (1, 1)


def test_copies_keep_the_shape(tmp_path):
    path = write(tmp_path / "circle.mp4", Fraction(4, 3), width=400, height=300)
    prepare_video(path, tmp_path / "copy.mp4", CopySettings(short_side=120, quality=5))
    views = [evl.read_views(one, **VIEWS, pixel_aspect=True) for one in (path, tmp_path / "copy.mp4")]
    assert roundness(views[1][0, 0]) == pytest.approx(1, rel=0.04)
    assert (views[0] - views[1]).abs().mean() < 3


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    for name, level in (("bright", 160), ("dark", 60)):
        (folder / name).mkdir()
        for i in range(6):
            picture = rng.normal(level, 40, (40, 56, 3)).clip(0, 255).astype(np.uint8)
            write(folder / name / f"{i}.mp4", Fraction(2), width=56, height=40, picture=picture)
    return folder


@pytest.fixture(scope="module")
def config(videos):
    config = replace(RunConfig(), **{**TINY, "data": {**TINY["data"], "path": str(videos)}})
    return replace(config, training={"steps": 2, "eval_every": 0})


@pytest.fixture(scope="module")
def runs(config, tmp_path_factory):
    """By whether pixels were made square."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        square: (folder / str(square), train(replace(config, data={"pixel_aspect": square}), folder / str(square)))
        for square in (True, False)
    }


def test_it_is_saved_with_the_model(runs, videos):
    path = str(videos / "dark" / "0.mp4")
    scores = {}
    for square, (folder, _) in runs.items():
        model = evl.load(folder)
        assert model.card.preprocessing.pixel_aspect is square
        pre, clip = model.card.preprocessing, model.card.config.clip
        views = evl.read_views(
            path, num_frames=clip.num_frames, stride=clip.stride, num_clips=2, num_crops=1, size=pre.image_size,
            mean=pre.mean, std=pre.std, interpolation=pre.interpolation, antialias=pre.antialias, pixel_aspect=square,
        )  # fmt: skip
        with torch.inference_mode():
            by_hand = model(views).double().softmax(-1).mean(0)
        (found,) = evl.predict(model, path).predictions
        assert found.scores == pytest.approx(by_hand.tolist(), abs=1e-6)
        scores[square] = found.scores
    assert scores[True] != pytest.approx(scores[False], abs=1e-4)


def test_a_store_is_of_one_of_the_two(runs, config, tmp_path):
    folder, live = runs[True]
    extract(config, tmp_path / "store", StoreOptions(dtype="float32"))
    store = FeatureStore(tmp_path / "store")
    assert all(one.is_equal for one in verify_store(tmp_path / "store", sample=3, seed=0).clips)
    stored = load_for_store(folder, store)
    (judged,) = evaluate_views([stored], views_of_store(stored, store))
    for got, wanted in zip(judged.predictions, live.evaluation.predictions, strict=True):
        assert got.scores == pytest.approx(wanted.scores, abs=1e-5)
    with pytest.raises(StoreError, match="pixel_aspect"):
        load_for_store(runs[False][0], store)
    other = replace(config, data={"path": None, "features": str(tmp_path / "store"), "pixel_aspect": False})
    with pytest.raises(StoreError, match=r"data\.pixel_aspect is False in the run and True in the store"):
        train(other, tmp_path / "refused")


def test_on_by_default_and_off_as_published():
    assert build_classifier(RunConfig(), ("a", "b")).card.preprocessing.pixel_aspect is True
    assert not any(get_recipe(name).data.pixel_aspect for name in RECIPES)
