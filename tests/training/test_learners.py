"""Many learners on the same features: alone, side by side and stacked, they become the same."""

import random

import pytest
import torch
from torch import nn

from evl.backbones import create_backbone
from evl.config import RunConfig, replace
from evl.models.stacked import StackedClassifiers, changes_tokens, shape_of
from evl.runtime.distributed import World
from evl.saving import build_classifier
from evl.saving.build import taps_of
from evl.streams import Batch
from evl.training.learner import Learner, RandomStream, learning_rate
from evl.training.learners import Alone, Learners, Together, with_taps
from evl.types import LayerFeatures, MappedFeatures
from tests.helpers import assert_close

NAMES = ("a", "b", "c")
FRAMES = 3
KINDS = {
    "evl": {},
    "two queries": {"num_queries": 2},
    "without cross-frame": {"cross_frame": False},
    "position alone": {"cross_frame": False, "temporal_conv": False},
    "nothing temporal": {"cross_frame": False, "temporal_conv": False, "temporal_position": False},
    "narrow attention": {"qkv_width": 24, "num_heads": 3, "mlp_ratio": 1.5},
    "one block read": {"taps": "last 1"},
    "probe, one block": {"decoder": "attentive", "probe_blocks": 1},
    "probe without positions": {"decoder": "attentive", "probe_blocks": 1, "probe_positions": False},
    "probe, two blocks": {"decoder": "attentive", "probe_blocks": 2},
    "linear": {"decoder": "linear"},
}
pytestmark = pytest.mark.usefixtures("one_thread")
STACKED = [kind for kind in KINDS if kind != "probe, two blocks"]


@pytest.fixture(scope="module")
def backbone():
    """With a grid of 2×3, and in double precision, so that nothing but the forms can differ."""
    return create_backbone(replace(RunConfig(), backbone={"image_size": (16, 24)}).backbone, "last 2").double()


def config_of(kind="evl", *, dropout=0.0, seed=0, **training):
    training = {"steps": 5, "batch_size": 3, "log_every": 2, "seed": seed, "warmup_steps": 1, **training}
    model = {"taps": "last 2", "mlp_dropout": dropout, "head_dropout": dropout}
    config = replace(RunConfig(), model=model, clip={"num_frames": FRAMES}, training=training)
    return replace(config, model=KINDS[kind])


def make_learner(config, backbone):
    torch.manual_seed(config.training.seed)
    own = with_taps(backbone, taps_of(config.model))
    model = build_classifier(config, NAMES, backbone=own).double()
    with torch.no_grad():
        for parameter in model.trainable_parameters():  # zero-initialised ones too
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return Learner(str(config.training.seed), config, model, backbone.taps)


def make_features(backbone, num_clips=3):
    spec = backbone.spec

    def draw(*last):
        return torch.randn(num_clips, FRAMES, spec.num_tokens, *last, dtype=torch.float64)

    heads = (spec.num_heads, spec.head_width)
    return [LayerFeatures(draw(spec.width) + 1, 2 * draw(*heads), 2 * draw(*heads)) for _ in backbone.taps]


def make_batches(backbone, count=5, num_clips=3):
    return [(make_features(backbone, num_clips), torch.randint(3, (num_clips,))) for _ in range(count)]


def weights_of(learner):
    return {name: p.detach().clone() for name, p in learner.model.named_parameters() if p.requires_grad}


WORLD = World(0, 1, torch.device("cpu"))


def learn(learners, batches):
    learners.train()
    for step, batch in enumerate(batches):
        parts = batch if isinstance(batch, list) else [batch]
        learners.step(step, [Batch(one, labels, (), {}) for one, labels in parts], WORLD)


def assert_same_weights(one, other, relative=1e-5):
    got, wanted = weights_of(one), weights_of(other)
    assert got.keys() == wanted.keys()
    for name in wanted:
        assert_close(got[name], wanted[name], relative=relative, floor=1e-12)


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("num_clips", [1, 2])
@pytest.mark.parametrize("kind", STACKED)
def test_stacked_logits_and_gradients_equal_those_of_each_model(backbone, kind, num_clips, num_heads):
    models = [make_learner(config_of(kind, seed=g), backbone).model for g in range(num_heads)]
    features = make_features(backbone, num_clips)[-len(models[0].backbone.taps) :]
    direction = torch.randn(num_heads, num_clips, len(NAMES), dtype=torch.float64)
    wanted, gradients = [], []
    for model, towards in zip(models, direction, strict=True):
        wanted.append(model.classify(features))
        (wanted[-1] * towards).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    stack = StackedClassifiers(models)
    for _ in range(2):  # calling twice changes nothing
        got = stack.classify(features)
        (got * direction).sum().backward()
        stack.share_gradients()
        assert_close(got, torch.stack(wanted), relative=1e-9)
        for model, of_one in zip(models, gradients, strict=True):
            for name, gradient in of_one.items():
                assert_close(model.get_parameter(name).grad, gradient, relative=1e-9, floor=1e-12)
        stack.forget_gradients()
    stack.release()
    for model, one in zip(models, wanted, strict=True):
        assert torch.equal(model.classify(features), one)


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("kind", ["evl", "nothing temporal", "probe, one block"])
def test_stacked_on_narrower_features(backbone, kind, dtype, relative):
    """Parameters in float32, as when they are trained."""
    models = [make_learner(config_of(kind, seed=g), backbone).model for g in range(3)]
    features = make_features(backbone)
    wanted = torch.stack([model.classify(features) for model in models])
    for model in models:
        model.decoder.float(), model.head.float()
    narrow = [LayerFeatures(*(part.to(dtype) for part in one)) for one in features]
    got = StackedClassifiers(models).classify(narrow)
    assert got.dtype == torch.float32
    assert_close(got.double(), wanted, relative=relative)


def train_plainly(learner, batches):
    """One model, one optimizer, the textbook's loop."""
    training = learner.config.training
    parameters = list(learner.model.trainable_parameters())
    optimizer = torch.optim.AdamW(parameters, weight_decay=training.weight_decay)
    torch.manual_seed(training.seed * 1_000_003)
    learner.model.train()
    for step, (features, labels) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = learning_rate(step, training)
        logits = learner.model.classify(learner.pick(features))
        nn.functional.cross_entropy(logits.float(), labels, label_smoothing=training.label_smoothing).backward()
        if training.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, training.clip_grad_norm)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("together", [1, 8])
def test_a_head_of_many_becomes_what_it_becomes_alone(backbone, kind, together):
    """Dropout included, whatever the others are and draw."""
    others = [config_of(name, dropout=0.2, seed=9) for name in ("evl", "linear")]
    configs = [
        config_of(kind, dropout=0.4, lr=3e-4, seed=1),
        config_of(kind, dropout=0.4, lr=1e-4, seed=2, weight_decay=0.3, label_smoothing=0.1, clip_grad_norm=0.5),
    ]
    batches = make_batches(backbone)
    alone = []
    for config in configs:
        learner = make_learner(config, backbone)
        train_plainly(learner, batches)
        alone.append(learner)
    learners = Learners([make_learner(config, backbone) for config in (*configs, *others)], together=together)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    learn(learners, batches)
    assert torch.equal(torch.get_rng_state(), before), "nobody else's random numbers are used up"
    kinds = {type(unit) for unit in learners.units(batches[0][0])}
    assert kinds == ({Alone, Together} if together > 1 and kind in STACKED else {Alone})
    for got, wanted in zip(learners.all, alone, strict=False):
        assert_same_weights(got, wanted)


def test_curves_and_gradients_do_not_depend_on_the_cut(backbone):
    """Micro-batches, and clips that are missing: the mean over the clips that were there."""
    batches = [(make_features(backbone), torch.tensor([0, 1, 2])) for _ in range(3)]
    whole = Learners([make_learner(config_of(seed=g), backbone) for g in range(2)], together=1)
    learn(whole, batches)
    for together in (1, 2):
        cut = Learners([make_learner(config_of(seed=g), backbone) for g in range(2)], together=together)
        parts = [
            [([LayerFeatures(*(x[rows] for x in one)) for one in features], labels[rows])
             for rows in (slice(0, 1), slice(1, 3))] + [(None, labels[:0])]
            for features, labels in batches
        ]  # fmt: skip
        learn(cut, parts)
        for one, other in zip(cut.all, whole.all, strict=True):
            assert_same_weights(one, other)
            assert [step for step, *_ in one.curve] == [2]
            assert one.curve[0] == pytest.approx(other.curve[0])


def test_a_step_without_clips_is_not_taken(backbone):
    learners = Learners(
        [make_learner(config_of(seed=g, weight_decay=0.5, lr=0.1, warmup_steps=0), backbone) for g in range(2)]
    )
    before = weights_of(learners.all[0])
    learn(learners, [[(None, torch.zeros(0, dtype=torch.long))]])
    after = weights_of(learners.all[0])
    for name in before:
        assert torch.equal(after[name], before[name])


@pytest.mark.parametrize("together", [1, 3])
def test_a_head_that_explodes_is_dropped_and_the_others_go_on(backbone, together):
    configs = [config_of(seed=0), config_of(seed=1, lr=1e200), config_of(seed=2)]
    batches = make_batches(backbone)
    learners = Learners([make_learner(config, backbone) for config in configs], together=together)
    learn(learners, batches)
    assert [learner.problem is None for learner in learners.all] == [True, False, True]
    assert "lower training.lr" in learners.all[1].problem
    assert "step" in learners.all[1].problem
    sound = Learners([make_learner(config, backbone) for config in (configs[0], configs[2])], together=1)
    learn(sound, batches)
    for one, other in zip(learners.living, sound.all, strict=True):
        assert_same_weights(one, other)


def test_maps_are_made_once_and_only_for_who_reads_them(backbone, monkeypatch):
    from evl.models import crossframe as module
    from evl.models import temporal

    calls = []
    real = module.neighbor_maps
    monkeypatch.setattr(module, "neighbor_maps", lambda *a: calls.append(1) or real(*a))
    monkeypatch.setattr(temporal, "neighbor_maps", lambda *a: pytest.fail("made again"))
    learners = Learners(
        [make_learner(config_of(kind, seed=1), backbone) for kind in ("evl", "one block read", "linear")]
    )
    learn(learners, make_batches(backbone, count=1))
    assert len(calls) == 2  # one a tapped block
    some = Learners([make_learner(config_of("one block read", seed=g), backbone) for g in range(2)])
    shared = some.share(make_features(backbone))
    assert [type(one) for one in shared] == [LayerFeatures, MappedFeatures]


def test_what_goes_together(backbone):
    small = make_features(backbone)
    learners = [
        make_learner(config_of(kind, seed=g), backbone) for kind in ("evl", "nothing temporal") for g in range(4)
    ]
    assert [len(unit.learners) for unit in Learners(learners).units(small)] == [4, 4]
    large = [one._replace(tokens=torch.empty(64, 8, 197, 768, device="meta")) for one in small]
    assert [len(unit.learners) for unit in Learners(learners).units(large)] == [1, 1, 1, 1, 4]
    assert changes_tokens(learners[0].model)
    assert not changes_tokens(learners[-1].model)
    assert shape_of(learners[0].model) != shape_of(learners[-1].model)
    assert shape_of(make_learner(config_of("probe, two blocks"), backbone).model) is None
    with pytest.raises(ValueError, match="cannot be stacked"):
        StackedClassifiers([learners[0].model, learners[-1].model])


def test_a_random_stream_is_that_of_a_program_of_its_own():
    seed = random.randrange(1 << 30)
    torch.manual_seed(seed)
    wanted = torch.rand(4)
    stream = RandomStream(seed, torch.device("cpu"))
    with stream:
        first = torch.rand(2)
    torch.rand(7)
    with stream:
        second = torch.rand(2)
    assert torch.equal(torch.cat([first, second]), wanted)
