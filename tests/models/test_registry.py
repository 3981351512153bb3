"""The list of decoders: which settings each has, and decoders from outside of the package."""

import json
import sys

import pytest
import torch

import evl
from evl.config import ModelConfig, RunConfig, replace
from evl.decoders import DECODERS, OWN_SETTINGS
from evl.errors import CheckpointError, ConfigError
from evl.evaluation.stored import encoder_for
from evl.models.registry import architecture_of, build_decoder, reads_maps, taps_of
from evl.saving import build_classifier, read_card, save_model
from evl.store.store import FeatureStore
from evl.training.sweeps.sweep import sweep
from evl.types import BackboneSpec
from tests.store.helpers import describe, make_store

SPEC = BackboneSpec("a backbone", 8, 4, 2, 4, (2, 3), 1, (16, 24), (8, 8))
MODULE = """
import torch
from torch import nn
from evl.models.attention import CrossAttention

class Mean(nn.Module):
    def __init__(self, spec, *, num_frames, num_layers, width=8, give=None):
        super().__init__()
        self.project, self.width, self.give = nn.Linear(spec.width, width), width, give
        self.asked = (num_frames, num_layers)
    def forward(self, features):
        vectors = self.project(features[-1].tokens.mean((1, 2)))
        return vectors if self.give is None else vectors[:, :self.give]

class Looks(nn.Module):
    def __init__(self, spec, *, num_frames, num_layers):
        super().__init__()
        self.width = spec.width
        self.query = nn.Parameter(torch.randn(1, spec.width))
        self.norm, self.attention = nn.LayerNorm(spec.width), CrossAttention(spec.width, spec.width, 2)
    def forward(self, features):
        tokens = features[-1].tokens.flatten(1, 2)
        query = self.query.expand(len(tokens), -1, -1)
        return self.attention(query, tokens=tokens, norm=self.norm)[:, 0]

class Compares(Mean):
    reads_query_key = True
    def forward(self, features):
        return super().forward(features) + features[-1].query.mean() * features[-1].key.mean()

class Counts(Mean):
    def __init__(self, spec, **sizes):
        super().__init__(spec, **sizes)
        self.norm = nn.BatchNorm1d(self.width)
        self.start = float(torch.rand(()).item())  # which a tensor without content cannot
    def forward(self, features):
        return self.norm(super().forward(features))

class NoWidth(Mean):
    def __init__(self, spec, **sizes):
        super().__init__(spec, **sizes)
        del self.width

class Integers(Mean):
    def __init__(self, spec, **sizes):
        super().__init__(spec, **sizes)
        self.register_buffer("table", torch.arange(3))

class Plain:
    pass

def function(spec, **sizes):
    return Mean(spec, **sizes)
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder on Python's path with a module ``my_decoders``, and three that cannot be imported."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "my_decoders.py").write_text(MODULE)
    (folder / "half_written.py").write_text("1 / 0")
    (folder / "exits.py").write_text("import sys\nsys.exit(0)")
    (folder / "lacks_one.py").write_text("import no_such_package_of_anybody")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder
    sys.modules.pop("my_decoders", None)


def config_of(name, **model):
    return ModelConfig(decoder=f"my_decoders:{name}", **model)


def test_the_list_agrees_with_the_config():
    for name, entry in DECODERS.items():
        assert set(entry.settings) <= set(OWN_SETTINGS)
        assert {entry.maps_if, *entry.defaults} - {None} <= set(entry.settings), name
        if entry.path is not None:
            decoder = build_decoder(ModelConfig(decoder=name), SPEC, 2, 3)
            assert f"{type(decoder).__module__}:{type(decoder).__name__}" == entry.path
            assert getattr(decoder, "reads_maps", False) == reads_maps(ModelConfig(decoder=name))
    own = {name for name in ModelConfig.__dataclass_fields__}
    assert set(OWN_SETTINGS) <= own
    # the rest is the head's, or says what is read
    assert own - set(OWN_SETTINGS) == {"decoder", "taps", "head_dropout", "zero_shot_start", "prompts"}
    assert taps_of(ModelConfig(decoder="linear", taps=(2, 3))) == (3,)
    assert taps_of(ModelConfig("evl", taps=(2, 3))) == (2, 3)
    assert not reads_maps(ModelConfig(cross_frame=False))
    assert architecture_of(ModelConfig(decoder="attentive"), SPEC) == {
        "decoder": "attentive", "qkv_width": 8, "num_heads": 2, "mlp_ratio": 4.0, "probe_blocks": 4,
        "probe_positions": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("decoder", "setting", "whose"),
    [
        ("linear", "temporal_conv=false", "temporal_conv is the EVL decoder's; set decoder=evl with it"),
        (
            "linear",
            "mlp_ratio=2",
            "EVL decoder's and the attentive probe's and the side network's; set decoder=evl or attentive or side",
        ),
        ("linear", "probe_blocks=2", "the attentive probe's"),
        ("linear", "cross_frame=true", "cross_frame is the EVL decoder's"),  # also where that is the default
        ("attentive", "num_queries=1", "one query"),
        ("my_decoders:Mean", "mlp_ratio=4.0", "EVL decoder's and the attentive probe's"),
        ("attentive", "query_init=zero", "query_init is the EVL decoder's"),
        ("attentive", "cross_frame=false", "cross_frame is the EVL decoder's"),
        ("attentive", "num_queries=2", "one query"),
        ("zero_shot", "num_heads=2", "num_heads is the EVL decoder's and"),
        ("evl", "probe_positions=true", "the attentive probe's"),
        ("evl", "options={a: 1}", "options are for decoders from outside"),
        ("my_decoders:Mean", "num_heads=2", "num_heads is the EVL decoder's and"),
        ("my_decoders:Mean", "probe_blocks=2", "the attentive probe's"),
    ],
)
def test_settings_of_others_are_refused(decoder, setting, whose, tmp_path):
    name, _, value = setting.partition("=")
    ways = {
        "strings": lambda: RunConfig().with_settings([f"model.decoder={decoder}", f"model.{setting}"]),
        "one by one": lambda: (
            RunConfig().with_settings([f"model.decoder={decoder}"]).with_settings([f"model.{setting}"])
        ),
        "fields": lambda: replace(RunConfig(), model={"decoder": decoder, name: yaml_value(value)}),
        "file": lambda: RunConfig.from_yaml(tmp_path / "c.yaml", strict=True),
    }
    (tmp_path / "c.yaml").write_text(f"model:\n  decoder: {decoder}\n  {name}: {value}\n")
    for way, make in ways.items():
        with pytest.raises(ConfigError) as caught:
            make()
        assert whose in str(caught.value), way


def yaml_value(text):
    import yaml

    return yaml.safe_load(text)


def test_what_only_stands_there_gives_way(tmp_path):
    """A recipe's settings, when another decoder is chosen; and files of runs from before keep loading."""
    chosen = replace(RunConfig(), model={"query_init": "zero", "mlp_ratio": 2})
    assert chosen.with_settings(["model.decoder=attentive"]).model == ModelConfig(decoder="attentive", mlp_ratio=2)
    assert replace(chosen, model={"decoder": "linear"}).model == ModelConfig(decoder="linear")
    assert replace(chosen, model={"taps": "all"}).model.query_init == "zero"
    old = RunConfig.from_dict({"model": {"decoder": "linear", "query_init": "zero"}})
    (tmp_path / "config.yaml").write_text(old.to_yaml())
    for strict in (False, True):
        assert RunConfig.from_yaml(tmp_path / "config.yaml", strict=strict) == old
    assert replace(old, training={"steps": 3}).model == old.model
    assert replace(RunConfig(), **old.to_dict()).model == ModelConfig(decoder="linear")  # a whole section


def test_names_that_mean_nothing():
    for name in ("evl2", "my_module", "my module:A", "a:b:c", ":A", "a:", "../a:B", "a/b.py:C", 3):
        with pytest.raises(ConfigError, match=r"'evl', 'linear'.*my_module:MyDecoder|valid string"):
            replace(RunConfig(), model={"decoder": name})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_module:A", "Python finds no module no_such_module; install its package, or put the folder"),
        ("my_decoders.inner:A", "my_decoders.inner"),
        ("half_written:A", "importing half_written failed: ZeroDivisionError"),
        ("lacks_one:A", "lacks_one imports no_such_package_of_anybody, which is not installed"),
        ("my_decoders:Meen", "my_decoders has no Meen; did you mean Mean"),
        ("my_decoders:Plain", "Plain is not a subclass of torch.nn.modules.module.Module"),
        ("my_decoders:function", "function is not a subclass"),
        ("my_decoders:NoWidth", "must have an attribute width"),
        ("my_decoders:Mean", "unexpected keyword argument 'hiden'"),
        ("os:system", "os is a module of Python itself"),
        ("antigravity:fly", "antigravity is a module of Python itself"),
        ("numpy.f2py.__main__:main", "numpy.f2py.__main__ is a program"),
        ("exits:A", "importing exits failed: SystemExit: 0"),
    ],
)
def test_what_cannot_be_made(outside, name, sentence):
    options = {"hiden": 3} if name == "my_decoders:Mean" else {}
    with pytest.raises(ConfigError) as caught:
        build_decoder(ModelConfig(decoder=name, options=options), SPEC, 2, 3)
    assert f"model.decoder={name}" in str(caught.value)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("width", [0, -1, 2.0, True, "8", None])
def test_a_width_that_is_none(outside, width):
    import my_decoders

    class Odd(my_decoders.Mean):
        def __init__(self, spec, **sizes):
            super().__init__(spec, **sizes)
            self.width = width

    my_decoders.Odd = Odd
    with pytest.raises(ConfigError, match="must have an attribute width, the D of its output"):
        build_decoder(config_of("Odd"), SPEC, 2, 3)


def tiny(name, **model):
    config = replace(
        RunConfig(), backbone={"image_size": 24}, clip={"num_frames": 3},
        model={"decoder": f"my_decoders:{name}", "taps": [2, 4], **model},
    )  # fmt: skip
    return build_classifier(config, ["a", "b", "c"], seed=0).eval()


def test_its_width_is_the_heads(outside):
    model = tiny("Mean", options={"width": 5})
    assert model.head.linear.in_features == 5
    assert model.decoder.asked == (3, 2)
    assert model(torch.randn(2, 3, 3, 24, 24)).shape == (2, 3)
    with pytest.raises(ConfigError, match=r"Mean.forward gave .*\(2, 4\); expected .*= \(2, 5\)"):
        tiny("Mean", options={"width": 5, "give": 4})(torch.randn(2, 3, 3, 24, 24))


def test_half_precision_features_are_widened(outside):
    model = tiny("Compares")
    features = model.features(torch.randn(2, 3, 3, 24, 24))
    narrow = [type(one)(*(part.bfloat16() for part in one)) for one in features]
    assert model.classify(narrow).dtype == torch.float32


@pytest.mark.parametrize("name", ["Mean", "Looks", "Compares", "Counts"])
def test_there_and_back(outside, tmp_path, name):
    options = {"options": {"width": 7}} if name == "Mean" else {}
    model = tiny(name, **options)
    save_model(model, tmp_path)
    clips = torch.randn(2, 3, 3, 24, 24)
    loaded = evl.load(tmp_path)
    assert torch.equal(loaded(clips), model(clips))
    assert loaded.card.config.model == model.card.config.model
    assert f"my_decoders:{name}" in evl.load(tmp_path).generate_model_card().content


def test_explained_where_it_attends(outside):
    model, clips = tiny("Looks"), torch.randn(2, 3, 3, 24, 24)
    shown = evl.explain(model, clips)
    assert shown.attention.shape == (1, 2, 3, *model.encoder.spec.grid)
    total = shown.attention.sum((2, 3, 4)) + shown.prefix_share
    torch.testing.assert_close(total, torch.ones(1, 2))
    with pytest.raises(ConfigError, match="has no attention to show"):
        evl.explain(tiny("Mean"), clips)


def test_what_could_not_be_loaded_is_not_made_and_not_saved(outside, tmp_path):
    with pytest.raises(ConfigError, match=r"Integers: table holds torch.int64, .* make it .* persistent=False"):
        tiny("Integers")
    model = tiny("Mean")
    model.decoder.register_buffer("late", torch.arange(3))
    with pytest.raises(CheckpointError, match=r"decoder.late holds torch.int64; make it .* persistent=False"):
        save_model(model, tmp_path)


def test_nothing_in_a_models_folder_is_executed(outside, tmp_path, monkeypatch):
    save_model(tiny("Mean"), tmp_path)
    (tmp_path / "evil_one.py").write_text("raise SystemExit('executed')")
    card = json.loads((tmp_path / "model.json").read_text())
    card["config"]["model"]["decoder"] = "evil_one:Mean"
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(ConfigError, match="Python finds no module evil_one"):
        evl.load(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as where Python is started in that folder
    for act in (read_card, evl.load):
        with pytest.raises(CheckpointError, match="never executes code from there"):
            act(tmp_path)


@pytest.mark.parametrize("folder", ["gift", "gifts/one", "gifts/one/inner"])
def test_nothing_in_a_models_folder_is_executed_as_part_of_a_package(outside, tmp_path, monkeypatch, folder):
    """Every folder below Python's path is a package, so a dotted name reaches into a model's folder."""
    save_model(tiny("Mean"), tmp_path / folder)
    package = folder.replace("/", ".")
    (tmp_path / folder / "evil_two.py").write_text("raise SystemExit('executed')")
    card = json.loads((tmp_path / folder / "model.json").read_text())
    card["config"]["model"]["decoder"] = f"{package}.evil_two:Mean"
    (tmp_path / folder / "model.json").write_text(json.dumps(card))
    monkeypatch.syspath_prepend(str(tmp_path))  # as where Python is started beside that folder
    with pytest.raises(CheckpointError, match="never executes code from there"):
        evl.load(tmp_path / folder)
    assert package.split(".")[0] not in sys.modules  # looking for the file imports nothing
    (tmp_path / "own_code").mkdir()
    (tmp_path / "own_code/fine.py").write_text(MODULE)
    card["config"]["model"]["decoder"] = "own_code.fine:Mean"  # outside the model's folder
    (tmp_path / folder / "model.json").write_text(json.dumps(card))
    assert type(evl.load(tmp_path / folder).decoder).__name__ == "Mean"


def test_swept_beside_others(outside, tmp_path):
    make_store(tmp_path / "store", describe(form="maps", splits={"train": 6, "val": 3}))
    store = FeatureStore(tmp_path / "store")
    data = {"features": str(tmp_path / "store")}
    config = replace(store.description.config, data=data, training={"batch_size": 4, "steps": 2})
    grid = ["model.decoder=evl,my_decoders:Mean", "model.taps=[3],[2,5]"]
    found = sweep(config, grid, tmp_path / "out")
    assert len(found.ranked) == 4
    assert all(learner.problem is None for learner in found.ranked)
    configs = [read_card(tmp_path / "out/learners" / f"{n:03d}").config.model for n in range(4)]
    assert [(one.decoder, one.taps) for one in configs] == [
        ("evl", (3,)), ("evl", (2, 5)), ("my_decoders:Mean", (3,)), ("my_decoders:Mean", (2, 5)),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="queries and keys, which a store does not hold"):
        encoder_for(config_of("Compares", taps=(3,)), store)
    found = sweep(config, ["model.decoder=my_decoders:Mean", "model.options={width: 4},{width: 6}"], tmp_path / "two")
    assert {learner.settings["model.options"] for learner in found.ranked} == {"{width: 4}", "{width: 6}"}


def test_queries_and_keys_beside_maps(outside, tiny_config, tmp_path):
    """One that reads maps makes its own, where another reads what maps are made of."""
    config = replace(tiny_config, training={"steps": 2, "eval_every": 0})
    found = sweep(config, ["model.decoder=evl,my_decoders:Compares"], tmp_path / "out")
    assert all(learner.problem is None for learner in found.ranked)
