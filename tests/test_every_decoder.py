"""What evl can do, with every decoder of the list: the table of docs/side.md, cell by cell."""

import json
import os
import shutil
import signal

import pytest
import torch

import evl
from evl.bench.side import plain_side
from evl.config import RunConfig, replace
from evl.decoders import DECODERS
from evl.errors import ConfigError
from evl.evaluation import evaluate_views, load_for_store, views_of_store
from evl.extraction.extract import extract
from evl.saving import save_model
from evl.store.description import StoreOptions
from evl.store.store import FeatureStore
from evl.training import Interrupted, train
from evl.training.few_shots.few_shot import few_shot
from evl.training.sweeps.sweep import sweep
from tests.conftest import TINY
from tests.helpers import assert_close, run_command
from tests.saving.test_hub import catch_pushes
from tests.training.helpers import WITHOUT_EFFECT, assert_same_run, in_two_processes, weights, with_broken_in_training

# the trained decoders, and the forms of the side network that do something of their own
FORMS = {name: {"decoder": name} for name, entry in DECODERS.items() if entry.path is not None} | {
    "side, last 2, causal, query": {"decoder": "side", "taps": "last 2", "causal": True, "side_readout": "query"},
    "side, from 0, layer norm": {"decoder": "side", "taps": [0, 2, 5], "side_norm": "layer"},
}
SMALL = {"side": {"side_width": 16}, "attentive": {"probe_blocks": 2}}
every_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_all():
    """For tensors so small that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config_of(form, videos, **training):
    model = {"taps": "last 2", "head_dropout": 0.1, **SMALL.get(FORMS[form]["decoder"], {}), **FORMS[form]}
    data = {**TINY["data"], "path": str(videos)}
    config = replace(RunConfig(), **{**TINY, "data": data, "model": model})
    return replace(config, training={"eval_every": 0, **training})


@pytest.fixture(scope="module")
def runs(videos, tmp_path_factory):
    """``runs(form)``: the folder of a trained run, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run_of(form):
        if form not in made:
            made[form] = folder / str(len(made))
            train(config_of(form, videos), made[form])
        return made[form]

    return run_of


@pytest.fixture(scope="module")
def stores(videos, tmp_path_factory):
    """Stores in both forms that have what every decoder reads: all blocks, and what enters block 1."""
    folder = tmp_path_factory.mktemp("stores")
    config = replace(config_of("side", videos), model={"taps": [0, 1, 2, 3, 4, 5]})
    for kind in ("tokens", "maps"):
        extract(config, folder / kind, StoreOptions(form=kind, dtype="float32"))
    return folder


@pytest.fixture(scope="module")
def store_of_8_bits(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "store"
    config = replace(config_of("side", videos), model={"taps": [0, 1, 2, 3, 4, 5]})
    extract(config, folder, StoreOptions(form="maps", dtype="int8"))
    return folder


def clips_of(model, count=2):
    return torch.randn(count, 3, 3, *model.encoder.spec.image_size)


def scores(evaluation):
    return torch.tensor([prediction.scores for prediction in evaluation.predictions])


@every_form
def test_trained_saved_and_loaded(form, runs, tmp_path):
    model = evl.load(runs(form))
    clips = clips_of(model)
    assert torch.isfinite(model(clips)).all()
    save_model(model, tmp_path / "again")
    assert torch.equal(evl.load(tmp_path / "again")(clips), model(clips))
    assert model.card.config.model.decoder == FORMS[form]["decoder"]


@every_form
def test_evaluated_and_predicted(form, runs, videos):
    evaluation = evl.evaluate(runs(form), str(videos))
    assert len(evaluation.predictions) == 12
    path = videos / "dark" / "0 video.mp4"
    alone = evl.load(runs(form)).predict(str(path))
    (together,) = [one for one in evaluation.predictions if one.path.endswith("dark/0 video.mp4")]
    assert_close(torch.tensor(alone.scores), torch.tensor(together.scores))  # no matter which videos it is judged with


@every_form
def test_embedded(form, runs, videos):
    model = evl.load(runs(form))
    vectors = evl.embed(model, [str(videos / "dark" / "0 video.mp4")])
    assert vectors.shape == (1, model.decoder.width)


@every_form
def test_exported(form, runs, tmp_path, capsys):
    code, _, error = run_command(capsys, "export", runs(form), "--out", tmp_path / "export")
    assert code == 0, error
    model, exported = evl.load(runs(form)), evl.load(tmp_path / "export")
    clips = clips_of(model)
    assert torch.equal(exported(clips), model(clips))
    assert DECODERS[FORMS[form]["decoder"]].phrase in (tmp_path / "export" / "README.md").read_text()


@every_form
def test_pushed_to_the_hub(form, runs, monkeypatch, tmp_path):
    model = evl.load(runs(form))
    catch_pushes(monkeypatch, tmp_path / "pushed")
    model.push_to_hub("someone/doors")
    clips = clips_of(model)
    assert torch.equal(evl.VideoClassifier.from_pretrained(tmp_path / "pushed")(clips), model(clips))


@every_form
def test_explained(form, runs):
    model = evl.load(runs(form))
    clips = clips_of(model)
    explanation = evl.explain(model, clips)
    total = explanation.attention.sum((2, 3, 4)) + explanation.prefix_share
    assert_close(total, torch.ones_like(total))
    assert_close(explanation.logits, model(clips))


@every_form
def test_resumed_bit_exactly(form, videos, tmp_path, runs):
    def press(progress):
        if (progress.phase, progress.step) == ("training", 4):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped at step 4"):
        train(config_of(form, videos), tmp_path / "parts", progress=press)
    train(None, tmp_path / "parts", resume=True)
    whole, parts = weights(runs(form)), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("kind", ["tokens", "maps"])
@every_form
def test_on_a_store_as_on_videos(form, kind, stores, videos, tmp_path):
    config = replace(config_of(form, videos), data={"features": str(stores / kind)})
    result = train(config, tmp_path / "run")
    store = FeatureStore(stores / kind)
    with torch.inference_mode():
        model = load_for_store(tmp_path / "run", store)
        (stored,) = evaluate_views([model], views_of_store(model, store))
    live = evl.evaluate(evl.load(tmp_path / "run"), evl.read_manifest(tmp_path / "run/val.csv").samples)
    assert_close(scores(stored), scores(result.evaluation))
    assert_close(scores(live), scores(stored), relative=1e-4)


@every_form
def test_judged_on_a_store_of_8_bits(form, runs, store_of_8_bits):
    """Every tapped map loses a little, so scores do, too."""
    run, store = runs(form), FeatureStore(store_of_8_bits)
    with torch.inference_mode():
        model = load_for_store(run, store)
        (stored,) = evaluate_views([model], views_of_store(model, store))
    live = evl.evaluate(evl.load(run), evl.read_manifest(run / "val.csv").samples)
    found = {prediction.path: prediction.scores for prediction in stored.predictions}
    wanted = scores(live)
    got = torch.tensor([found[prediction.path] for prediction in live.predictions])
    assert not torch.equal(got, wanted)
    assert_close(got, wanted, relative=0.05)


@pytest.mark.parametrize("source", ["videos", "tokens", "maps"])
def test_swept_together_as_alone(source, stores, videos, tmp_path):
    """Every learner has statistics of its own."""
    config = config_of("side", videos)
    if source != "videos":
        config = replace(config, data={"features": str(stores / source)})
    grid = [f"model.decoder={','.join(name for name, form in FORMS.items() if form == {'decoder': name})}",
            "model.taps=last 2", "training.lr=1e-3,2e-3"]  # fmt: skip
    found = sweep(replace(config, model={"decoder": "evl", "mlp_dropout": 0}), grid, tmp_path / "sweep")
    assert len(found.ranked) == 8
    assert all(learner.problem is None for learner in found.ranked)
    files = (tmp_path / "sweep" / "learners").glob("*/model.json")
    cards = {file.parent: json.loads(file.read_text())["config"] for file in files}
    chosen = [folder for folder, card in cards.items()
              if card["model"]["decoder"] == "side" and card["training"]["lr"] == 1e-3]  # fmt: skip
    assert len(chosen) == 1
    alone = RunConfig.from_dict(cards[chosen[0]])
    alone = replace(alone, data=config.to_dict()["data"], training=config.to_dict()["training"] | {"lr": 1e-3})
    train(alone, tmp_path / "alone")
    one, other = weights(tmp_path / "alone"), weights(chosen[0])
    for name in one:
        assert_close(one[name].float(), other[name].float(), relative=1e-3, floor=2e-4)


@every_form
def test_few_shot(form, stores, videos, tmp_path):
    config = replace(config_of(form, videos, steps=3), data={"features": str(stores / "tokens")})
    result = few_shot(config, tmp_path / "few", shots=(1, 2), draws=2)
    assert [row.shots for row in result.rows] == [1, 2]


@pytest.mark.slow  # tests/training/test_train.py has EVL and the side network in the default tests
@every_form
def test_two_processes_equal_one(form, videos, tmp_path):
    """With a damaged video, so that a process may have fewer clips in a batch, or none."""
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos/dark/broken.mp4").write_bytes(b"broken" * 1000)
    size = 4 if form.startswith("side") else 2  # a batch norm needs two clips
    config = config_of(form, tmp_path / "videos", accumulation=1, batch_size=size, steps=8)
    model = {"head_dropout": 0} | ({"mlp_dropout": 0} if form in ("evl", "attentive") else {})
    config = with_broken_in_training(replace(config, model=model, data={"max_damaged_share": 0.5}))
    train(config, tmp_path / "one")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    done = in_two_processes("forked", ["train", "--config", tmp_path / "config.yaml", "--out", tmp_path / "two"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_run(tmp_path / "one", tmp_path / "two", WITHOUT_EFFECT if form.startswith("side") else ())


@every_form
def test_compiled_and_in_half_precision(form, runs):
    """bf16 features, as training in bf16 gives them."""
    model = evl.load(runs(form))
    clips = clips_of(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(clips)
    assert_close(half.float(), model(clips), relative=0.1)


@every_form
def test_mirrored_labels_and_two_draws_of_a_video(form, videos, tmp_path, caplog):
    """``augment.flip=pairs`` and ``training.repeated_augmentation``, for every decoder."""
    (tmp_path / "videos").mkdir()
    for name, other in (("bright", "to the left"), ("dark", "to the right")):
        shutil.copytree(videos / name, tmp_path / "videos" / other)
    config = config_of(form, tmp_path / "videos", steps=2, repeated_augmentation=2)
    config = replace(config, augment={"flip": "pairs"})
    with caplog.at_level("INFO", logger="evl"):
        train(config, tmp_path / "run")
    assert "flipped clips exchange the labels of 1 pairs of classes" in caplog.text
    assert "'to the left' ↔ 'to the right'" in caplog.text
    with pytest.raises(ConfigError, match=r"augment\.flip=pairs changes labels of clips, and a store has one label"):
        extract(config, tmp_path / "store")


def test_batches_of_one_clip_are_refused_where_they_teach_nothing(videos, tmp_path):
    config = config_of("side", videos, batch_size=4, accumulation=4, steps=2)
    with pytest.raises(ConfigError, match=r"gives batches of 1 clip; this decoder .* needs at least 2"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(replace(config, model={"side_readout": "query"}), tmp_path / "query")


def test_the_side_networks_twin_reads_what_the_model_reads(runs):
    """The whole model, from pixels: start and taps are in their places."""
    model = evl.load(runs("side, from 0, layer norm"))
    clips = clips_of(model)
    maps = model.backbone.token_maps(clips)[0]
    features = model.features(clips)
    for block, one in zip((0, 2, 5), features, strict=True):
        assert torch.equal(one.tokens, maps[block])
    decoder = model.decoder.double().train()
    features = [one._replace(tokens=one.tokens.double()) for one in features]
    with torch.no_grad():
        assert_close(plain_side(decoder, features), decoder(features))
