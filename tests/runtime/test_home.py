"""``~`` is the home folder, in every path that comes in: by option, setting, list or Python."""

import shutil
from pathlib import Path

import pytest
import yaml

import evl
from evl.collections.check import check_file
from evl.config import BackboneConfig, DataConfig, RunConfig, TrainingConfig, replace
from evl.data.index_file import IndexFile, write_index
from evl.data.manifests.manifest import list_videos, read_class_names, read_manifest, write_manifest
from evl.errors import CheckpointError, StoreError
from evl.runtime.files import expand_home, write_atomically
from evl.store.store import FeatureStore
from evl.training import train
from evl.types import Sample
from tests.helpers import GOLDEN, run_command

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def home(tmp_path, monkeypatch, videos):
    """The home folder, with ``videos``; we are in another folder, in which nothing named ``~`` may appear."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    shutil.copytree(videos, home / "videos")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    yield home
    assert not [path for path in here.rglob("*") if "~" in path.name]


def test_only_a_leading_tilde_is_home(home):
    assert expand_home("~") == str(home)
    assert expand_home("~/a/~b") == f"{home}/a/~b"
    assert expand_home(Path("~/a")) == home / "a"
    assert expand_home(b"~/a") == f"{home}/a".encode()
    assert expand_home("~root/a") == str(Path("~root/a").expanduser())
    for other in ("a/~/b", "./~/a", "~nobody-has-this-name/a", "~$draft.mp4", "clip~1.mp4", "/~", "", "owner/name"):
        assert expand_home(other) == other
        assert other.startswith("./") or expand_home(Path(other)) == Path(other)  # pathlib drops the ./


@pytest.mark.parametrize(
    "key",
    ["backbone.weights", "data.path", "data.val_path", "data.root", "data.class_names", "data.index", "data.features",
     "training.init"],
)  # fmt: skip
def test_settings(home, key):
    section, field = key.split(".")
    wanted = f"{home}/x y"
    (home / "config.yaml").write_text(yaml.safe_dump({section: {field: "~/x y"}}))
    configs = [
        RunConfig().with_settings([f"{key}=~/x y"]),
        replace(RunConfig(), **{section: {field: "~/x y"}}),
        RunConfig.from_yaml("~/config.yaml"),
    ]
    assert [getattr(getattr(config, section), field) for config in configs] == [wanted] * 3
    assert RunConfig().with_settings([f"{key}=~"]) == RunConfig()  # which is null in YAML


def test_settings_of_a_section(home):
    assert DataConfig(path="~/videos").path == str(home / "videos")
    assert BackboneConfig(weights="~/w.pt").weights == str(home / "w.pt")
    assert TrainingConfig(init="owner/name").init == "owner/name"


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "txt"])
def test_rows_of_a_list(home, kind):
    rows = [("~/videos/bright/0 video.mp4", "bright"), ("~/videos/dark/0 video.mp4", "dark"), ("~odd/a.mp4", "dark")]
    (home / "lists" / "~odd").mkdir(parents=True)
    shutil.copy(home / "videos/dark/0 video.mp4", home / "lists/~odd/a.mp4")
    file = home / "lists" / f"list.{kind}"
    if kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(dict(zip(("path", "label"), zip(*rows, strict=True), strict=True))), file)
    else:
        sign = {"csv": ",", "tsv": "\t", "txt": " "}[kind]
        head = [] if kind == "txt" else [("path", "label")]
        file.write_text("".join(f"{sign.join(row)}\n" for row in [*head, *rows]))
    found = read_manifest(f"~/lists/list.{kind}")
    assert [sample.path for sample in found.samples] == [
        f"{home}/videos/bright/0 video.mp4", f"{home}/videos/dark/0 video.mp4", f"{home}/lists/~odd/a.mp4",
    ]  # fmt: skip
    assert not found.missing


def test_lists_and_folders(home):
    (home / "list.csv").write_text("path,label\nbright/0 video.mp4,0\ndark/0 video.mp4,1\n")
    (home / "names.txt").write_text("b\nd\n")
    names = read_class_names("~/names.txt")
    found = read_manifest("~/list.csv", root="~/videos", class_names=names)
    assert not found.missing
    assert found.class_names == ("b", "d")
    assert len(read_manifest("~/videos").samples) == len(list_videos("~/videos")) == 12
    write_manifest("~/new.csv", found.samples)
    assert read_manifest("~/new.csv").samples == found.samples


def test_a_folder_that_is_named_so_comes_back_from_a_list(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    samples = [Sample(str(tmp_path / "~" / "a.mp4"), "a"), Sample(str(tmp_path / "~b" / "a.mp4"), "b")]
    write_manifest(tmp_path / "list.csv", samples)
    assert list(read_manifest(tmp_path / "list.csv").samples) == samples


def test_writing_and_indexes(home):
    with write_atomically("~/deep/file.txt", text=True) as file:
        file.write("here")
    assert (home / "deep/file.txt").read_text() == "here"
    report = check_file(Sample(str(home / "videos/dark/0 video.mp4"), "dark"))
    write_index("~/frames.index", [(report.sample.path, report.index, report.stamp)])
    assert IndexFile("~/frames.index").find(report.sample.path) is not None


def test_models_and_videos(home, finished_run):
    shutil.copytree(finished_run, home / "run")
    model = evl.load("~/run")
    for paths in ("~/videos/dark/0 video.mp4", b"~/videos/dark/0 video.mp4", [Path("~/videos/dark/0 video.mp4")]):
        result = evl.predict(model, paths)
        assert not result.damaged
        assert result.predictions[0].path == f"{home}/videos/dark/0 video.mp4"
    pre = model.card.preprocessing
    options = dict(num_frames=3, stride=2, num_clips=1, num_crops=1, size=pre.image_size, mean=pre.mean, std=pre.std)
    assert evl.read_views("~/videos/dark/0 video.mp4", **options).shape[0] == 1
    model.save_pretrained("~/saved")
    assert evl.VideoClassifier.from_pretrained("~/saved").class_names == model.class_names
    with pytest.raises(CheckpointError, match=f"{home}/nothing"):
        evl.load("~/nothing")
    with pytest.raises(StoreError, match=f"{home}/nothing"):
        FeatureStore("~/nothing")


def test_the_original_release(home):
    for name in ("release_checkpoint_tiny.pth", "openai_clip_tiny.pt"):
        shutil.copy(GOLDEN / name, home / name)
    evl.load_release("~/release_checkpoint_tiny.pth", "~/openai_clip_tiny.pt").save_pretrained("~/released")
    assert evl.load("~/released", backbone_weights="~/openai_clip_tiny.pt")


def test_training_in_python(home, tiny_config):
    config = replace(tiny_config, data={"path": "~/videos"}, training={"steps": 1})
    result = train(config, "~/runs/python")
    assert result.folder == home / "runs/python"
    assert (home / "runs/python/model.json").is_file()


def test_command_lines(home, finished_run, capsys):
    """As bash leaves them: it replaces --out ~/x, and not --out=~/x."""
    shutil.copytree(finished_run, home / "run")
    options = ["--manifest=~/clean.csv", "--index=~/frames.index", "--workers=0"]
    assert run_command(capsys, "check", "~/videos", *options)[0] == 0
    assert len(read_manifest(home / "clean.csv").samples) == 12
    assert (home / "frames.index").is_file()
    assert run_command(capsys, "evaluate", "~/run", "--data=~/clean.csv", "--out=~/judged", "--workers=0")[0] == 0
    assert (home / "judged/metrics.json").is_file()
    assert run_command(capsys, "export", "~/run", "--out=~/exported")[0] == 0
    assert (home / "exported/model.json").is_file()
    assert run_command(capsys, "predict", "~/exported", "~/videos/dark/0 video.mp4")[0] == 0
    (home / "names.txt").write_text("a ring\na star\n")
    for names in ("~/names.txt", "@~/names.txt"):
        assert run_command(capsys, "predict", "--zero-shot", names, "~/videos/dark/0 video.mp4")[0] == 0
    settings = ["data.num_workers=0", "training.steps=1", "evaluation.num_clips=1", "backbone.image_size=32"]
    code, _, err = run_command(
        capsys, "train", "--data=~/videos", "--out=~/runs/new", "--init=~/run", "--set", *settings,
        "data.index=~/frames.index",
    )  # fmt: skip
    assert code == 0, err
    assert (home / "runs/new/model.json").is_file()


def test_features(home, capsys):
    settings = ["data.num_workers=0", "backbone.image_size=32", "clip.num_frames=2", "evaluation.num_clips=1"]
    code, _, err = run_command(capsys, "extract", "--data=~/videos", "--out=~/store", "--yes", "--set", *settings)
    assert code == 0, err
    assert FeatureStore("~/store").splits
    code, _, err = run_command(
        capsys, "sweep", "--features=~/store", "--out=~/sweep", "--set", "training.steps=1", "training.lr=1e-3,1e-4"
    )
    assert code == 0, err
    assert (home / "sweep/best/model.json").is_file()


def test_copies(home):
    from evl.collections.copy_video import CopySettings
    from evl.collections.prepare import prepare

    shutil.rmtree(home / "videos/bright")
    report = prepare("~/videos", "~/copies", CopySettings(), num_workers=1)
    assert report.num_made == 6
    assert (home / "copies/dark/0 video.mp4").is_file()
