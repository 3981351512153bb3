"""A checkpoint that is well-formed but wrong is one sentence: no crash of the process, no traceback, no other state."""

import copy
import math
import random
import shutil

import pytest
import torch

from evl.backbones import create_backbone
from evl.config import RunConfig, replace
from evl.errors import CheckpointError
from evl.runtime.distributed import World
from evl.saving import build_classifier
from evl.streams import Batch
from evl.training import train
from evl.training.checkpoint import (
    _refuse_to_read_past_the_end,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from evl.training.learner import Learner
from evl.training.learners import Learners
from evl.types import LayerFeatures
from tests.mutations import ODD, bounded, change

pytestmark = pytest.mark.usefixtures("one_thread")
WORLD = World(0, 1, torch.device("cpu"))
HUGE = 10**30


@pytest.fixture(scope="module")
def backbone():
    return create_backbone(replace(RunConfig(), backbone={"image_size": 16}).backbone, "last 1")


def make_learners(backbone, count=1, precision="fp32"):
    training = {"steps": 6, "batch_size": 2, "log_every": 1, "precision": precision}
    model = {"taps": "last 1", "decoder": "linear"}
    config = replace(RunConfig(), model=model, clip={"num_frames": 2}, training=training)
    torch.manual_seed(0)
    return Learners(
        [Learner(f"learner {i}", config, build_classifier(config, "ab", backbone=backbone)) for i in range(count)]
    )


def one_step(learners, step):
    spec = learners.all[0].model.encoder.spec
    generator = torch.Generator().manual_seed(step)

    def draw(*last):
        return torch.randn(2, 2, spec.num_tokens, *last, generator=generator)

    heads = (spec.num_heads, spec.head_width)
    features = [LayerFeatures(draw(spec.width), draw(*heads), draw(*heads))]
    learners.train()
    learners.step(step, [Batch(features, torch.tensor([0, 1]), (0, 1), {})], WORLD)


def saved(folder, backbone, **options):
    """The content of a checkpoint after two steps."""
    learners = make_learners(backbone, **options)
    for step in range(2):
        one_step(learners, step)
    path = save_checkpoint(folder, 2, learners, keep_last=1, best=-50.0, selected="step 2", damaged={"a.mp4": "cut"})
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def content(backbone, tmp_path_factory):
    return saved(tmp_path_factory.mktemp("checkpoint"), backbone)


@pytest.fixture(scope="module")
def fresh(backbone):
    """Learners that stay as they are, since everything is refused."""
    return make_learners(backbone)


def everything(learners):
    """Copies of all that a checkpoint can change."""
    return copy.deepcopy([(one.state(), torch.get_rng_state()) for one in learners.all])


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def refused(folder, content, learners, sentence=None):
    before = everything(learners)
    torch.save(content, folder / "step_0000002.pt")
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_checkpoint(folder / "step_0000002.pt", learners, WORLD)
    assert str(folder / "step_0000002.pt") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500 + len(str(folder))
    assert same(everything(learners), before), "something was put back"


def put(*place, to):
    """A change: the value at ``place`` becomes ``to``, or ``to(value)``."""

    def change(state):
        for name in place[:-1]:
            state = state[name]
        state[place[-1]] = to(state[place[-1]]) if callable(to) else to

    return change


def past_the_end(state):
    """A state of the Mersenne twister with 600 draws left after the last of its 624 numbers, which torch takes."""
    state = state.clone()
    state[8:12] = torch.tensor([600], dtype=torch.int32).view(torch.uint8)
    state[16:24] = torch.tensor([624]).view(torch.uint8)
    torch.Generator().set_state(state)
    return state


LEARNER = ("learners", 0)
MOMENT = (*LEARNER, "optimizer", "state", 0)
WEIGHT = (*LEARNER, "model", "head.linear.weight")
SHAPES = {
    "one number": lambda t: torch.zeros(1),
    "empty": lambda t: torch.zeros(0),
    "a scalar": lambda t: torch.zeros(()),
    "longer": lambda t: torch.zeros(t.shape[0] + 1, *t.shape[1:]),
    "one dimension more": lambda t: t[None],
    "flat": lambda t: torch.zeros(t.numel() + 1),
    "double": lambda t: t.double(),
    "half": lambda t: t.half(),
    "whole numbers": lambda t: t.long(),
    "complex": lambda t: t.to(torch.complex64),
    "bytes": lambda t: t.to(torch.uint8),
    "sparse": lambda t: t.to_sparse(),
    "without memory": lambda t: t.to("meta"),
    "a list": lambda t: t.tolist(),
    "a number": 0.5,
    "a text": "0.5",
    "nothing": None,
    "a dict": {},
}
TENSORS = {
    "exp_avg": (*MOMENT, "exp_avg"),
    "exp_avg_sq": (*MOMENT, "exp_avg_sq"),
    "weight": WEIGHT,
    "random": (*LEARNER, "random", 0),
    "since": (*LEARNER, "since"),
    "seen": (*LEARNER, "seen"),
    "optimizer step": (*MOMENT, "step"),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("place", TENSORS)
def test_a_tensor_of_another_shape_or_type(tmp_path, fresh, content, place, kind):
    changed, small = copy.deepcopy(content), place in ("seen", "optimizer step")
    as_it_is = {("since", "double"), ("seen", "double"), ("random", "bytes"), ("seen", "a scalar")}
    if (place, kind) in as_it_is or (small and kind in ("longer", "flat", "a scalar")):
        put(*TENSORS[place], to=torch.zeros(3, 3))(changed)
    else:
        put(*TENSORS[place], to=SHAPES[kind])(changed)
    refused(tmp_path, changed, fresh)


WRONG = {
    "step of another file": (put("step", to=3), "step 3, which is not in its name"),
    "step 10**9": (put("step", to=10**9), "step 1000000000"),
    "step 0": (put("step", to=0), "step: .*greater than or equal to 1"),
    "step negative": (put("step", to=-2), "step: "),
    "step is a text": (put("step", to="2"), "step: .*integer"),
    "step is a float": (put("step", to=2.0), "step: .*integer"),
    "step is true": (put("step", to=True), "step: .*integer"),
    "step is a tensor": (put("step", to=torch.tensor(2)), "step: .*integer"),
    "step is a list": (put("step", to=[2]), "step: .*integer"),
    "hash of another encoder": (put("backbone_hash", to="0" * 64), "made on other backbone weights"),
    "hash is a number": (put("backbone_hash", to=3), "backbone_hash: .*string"),
    "hash is nothing": (put("backbone_hash", to=None), "backbone_hash: .*string"),
    "hash has line breaks": (put("backbone_hash", to="\n\x1b[31m"), "made on other backbone weights"),
    "best is a text": (put("best", to="-50"), "best: .*number"),
    "best is nothing": (put("best", to=None), "best: .*number"),
    "best is nan": (put("best", to=math.nan), "best score is not a number"),
    "selected is a number": (put("selected", to=3), "selected: .*string"),
    "damaged is a list": (put("damaged", to=["a.mp4"]), "damaged: .*dict"),
    "damaged has numbers": (put("damaged", to={"a.mp4": 3}), "damaged.a.mp4: .*string"),
    "damaged of numbers": (put("damaged", to={3: "cut"}), "damaged.3"),
    "no learners": (put("learners", to=[]), "0 learners, not 1"),
    "two learners": (put("learners", to=lambda one: one * 2), "2 learners, not 1"),
    "learners is a dict": (put("learners", to={}), "learners: .*list"),
    "a learner is a list": (put("learners", to=[[]]), r"learners\.0: .*dict"),
    "another learner": (put(*LEARNER, "name", to="learner 7"), "other names"),
    "name is a number": (put(*LEARNER, "name", to=3), r"learners\.0\.name"),
    "curve is nothing": (put(*LEARNER, "curve", to=None), r"learners\.0\.curve"),
    "curve has texts": (put(*LEARNER, "curve", to=[("a", "b", "c", "d")]), r"learners\.0\.curve\.0\.0"),
    "curve is short": (put(*LEARNER, "curve", to=[(1, 0.5)]), r"learners\.0\.curve\.0"),
    "curve of 300 percent": (put(*LEARNER, "curve", to=[(1, 0.5, 0.5, 300.0)]), r"curve\.0\.3"),
    "problem is a list": (put(*LEARNER, "problem", to=[1]), r"learners\.0\.problem"),
    "seconds is a text": (put(*LEARNER, "seconds", to="3"), r"learners\.0\.seconds"),
    "seconds is nan": (put(*LEARNER, "seconds", to=math.nan), r"learners\.0\.seconds"),
    "scaler of another precision": (put(*LEARNER, "scaler", to={"scale": 2.0}), r"scaler\.scale is unknown"),
    "scaler is a list": (put(*LEARNER, "scaler", to=[]), r"learners\.0\.scaler"),
    "random is nothing": (put(*LEARNER, "random", to=None), r"learners\.0\.random"),
    "random has noise": (put(*LEARNER, "random", 0, to=lambda t: torch.full_like(t, 255)), "random: "),
    "random reads past its end": (put(*LEARNER, "random", 0, to=lambda t: past_the_end(t)), "no state of its gen"),
    "weight is missing": (lambda s: s["learners"][0]["model"].pop("head.linear.weight"), "weight is missing"),
    "weight is unknown": (put(*LEARNER, "model", "other", to=torch.zeros(3)), "other is unknown"),
    "weight is nan": (put(*WEIGHT, to=lambda t: t * math.nan), "weights or moments are not numbers"),
    "optimizer is empty": (put(*LEARNER, "optimizer", to={}), "optimizer.state is NoneType"),
    "moments are nothing": (put(*LEARNER, "optimizer", "state", to={}), "has no moments"),
    "moments are a tensor": (put(*LEARNER, "optimizer", "state", to=torch.zeros(3)), "optimizer.state is a tensor"),
    "moments of one are missing": (lambda s: s["learners"][0]["optimizer"]["state"].pop(0), "0 is missing"),
    "moments by text": (put(*LEARNER, "optimizer", "state", to=lambda d: {str(k): v for k, v in d.items()}), "state"),
    "moments of amsgrad": (put(*MOMENT, "max_exp_avg_sq", to=torch.zeros(1)), "max_exp_avg_sq is unknown"),
    "moment is nan": (put(*MOMENT, "exp_avg", to=lambda t: t * math.nan), "weights or moments are not numbers"),
    "square is negative": (put(*MOMENT, "exp_avg_sq", to=lambda t: t - 1), "squared gradients is negative"),
    "optimizer is ahead": (put(*MOMENT, "step", to=torch.tensor(1e9)), "optimizer has done 1e"),
    "optimizer is behind 0": (put(*MOMENT, "step", to=torch.tensor(-1.0)), "optimizer has done -1 steps"),
    "optimizer step is nan": (put(*MOMENT, "step", to=torch.tensor(math.nan)), "optimizer has done nan steps"),
    "seen is nan": (put(*LEARNER, "seen", to=lambda t: t * math.nan), "counts of clips"),
    "seen is infinite": (put(*LEARNER, "seen", to=lambda t: t * math.inf), "counts of clips"),
    "since is negative": (put(*LEARNER, "since", to=lambda t: t - 1), "counts of clips"),
    "a field more": (put("more", to=1), "more: Extra"),
    "a long field more": (put("m" * 10_000, to=1), "mmm"),
    "a field with control characters": (put("\n\x1b[31m", to=1), r"\\n\\x1b\[31m: Extra"),
    "a weight with control characters": (put(*LEARNER, "model", "\n\x1b", to=torch.zeros(3)), r"\\n\\x1b is unknown"),
    "a field of a learner more": (put(*LEARNER, "more", to=1), r"learners\.0\.more: Extra"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_value_that_cannot_be(tmp_path, fresh, content, case):
    changed, (change, sentence) = copy.deepcopy(content), WRONG[case]
    change(changed)
    refused(tmp_path, changed, fresh, sentence)


@pytest.mark.parametrize("name", ["step", "backbone_hash", "learners", "best", "selected", "damaged"])
def test_a_field_is_missing(tmp_path, fresh, content, name):
    refused(tmp_path, {key: value for key, value in content.items() if key != name}, fresh, name)


@pytest.mark.parametrize("other", [[], 3, "text", None, torch.zeros(3), {}, {1: 2}, {"model": {}}], ids=repr)
def test_something_else(tmp_path, fresh, other):
    refused(tmp_path, other, fresh, "not a checkpoint of evl")


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", 0.0), ("scale", math.nan), ("scale", 1e300), ("scale", "x"), ("scale", None), ("_growth_tracker", HUGE)],
)
def test_the_scaler_of_half_precision(tmp_path, backbone, name, value):
    content = saved(tmp_path, backbone, precision="fp16")
    content["learners"][0]["scaler"][name] = value
    refused(tmp_path, content, make_learners(backbone, precision="fp16"), "scale")
    content["learners"][0]["scaler"] = {}
    refused(tmp_path, content, make_learners(backbone, precision="fp16"), r"scaler\.\w+ is missing")


def test_the_second_of_two_is_wrong(tmp_path, backbone):
    """The first one is not put back either."""
    content = saved(tmp_path, backbone, count=2)
    content["learners"][1]["optimizer"]["state"][0]["exp_avg"] = torch.zeros(1)
    refused(tmp_path, content, make_learners(backbone, count=2), r"exp_avg is a tensor of float32 \(1,\), expected")
    content["learners"].reverse()
    refused(tmp_path, content, make_learners(backbone, count=2), "other names")


@pytest.mark.parametrize("kind", ["expanded", "shared", "transposed"])
def test_moments_in_odd_memory_do_no_harm(tmp_path, backbone, content, kind):
    """One number that stands for all, one tensor twice, or another order in memory: values count, memory is our own."""
    changed, twin = copy.deepcopy(content), copy.deepcopy(content)
    for one, plain in zip(*(s["learners"][0]["optimizer"]["state"].values() for s in (changed, twin)), strict=True):
        value = one["exp_avg_sq"]
        if kind == "expanded":
            one["exp_avg_sq"] = torch.full((1,), 0.25).expand(value.numel()).view(value.shape)
        elif kind == "shared":
            one["exp_avg"] = one["exp_avg_sq"]
        else:
            one["exp_avg_sq"] = value.transpose(0, -1).contiguous().transpose(0, -1)
        plain.update({name: tensor.clone().contiguous() for name, tensor in one.items()})
    ends = []
    for state in (changed, twin):
        torch.save(state, tmp_path / "step_0000002.pt")
        learners = make_learners(backbone)
        load_checkpoint(tmp_path / "step_0000002.pt", learners, WORLD)
        one_step(learners, 2)
        ends.append(learners.all[0].model.trainable_state())
    assert same(*ends)


def test_what_was_saved_goes_on_as_it_was(tmp_path, backbone):
    learners = make_learners(backbone)
    for step in range(2):
        one_step(learners, step)
    path = save_checkpoint(tmp_path, 2, learners, keep_last=1, best=math.inf, selected=None, damaged={})
    again = make_learners(backbone)
    load_checkpoint(path, again, WORLD)
    for one in (learners, again):
        one_step(one, 2)
    ends = [{**one.all[0].state(), "seconds": 0} for one in (learners, again)]
    assert same(*ends)


def test_resuming_says_it_too(finished_run, tmp_path):
    """By the road of users; the first case ended in SIGSEGV, the second counted as finished."""
    state = torch.load(list_checkpoints(finished_run / "checkpoints")[0], weights_only=True)
    short = copy.deepcopy(state)
    for moments in short["learners"][0]["optimizer"]["state"].values():
        moments.update(exp_avg=torch.zeros(1), exp_avg_sq=torch.zeros(1))
    cases = [
        (15, short, "exp_avg is a tensor of float32"),
        (10**9, {**state, "step": 10**9}, "but the run has 30 steps"),
    ]
    shutil.copytree(finished_run, tmp_path / "run")
    for step, changed, sentence in cases:
        torch.save(changed, tmp_path / "run/checkpoints" / f"step_{step:07d}.pt")
        for other in list_checkpoints(tmp_path / "run/checkpoints"):
            if other.name != f"step_{step:07d}.pt":
                other.unlink()
        with pytest.raises(CheckpointError, match=f"{sentence}.*; remove it to go on from the checkpoint before"):
            train(None, tmp_path / "run", resume=True)


def test_every_state_of_the_generator_is_one(tmp_path):
    """Its numbers are made 624 at a time; normal ones, two at a time."""
    generator = torch.Generator().manual_seed(0)
    for count in [0, *range(1, 5), 617, 1, 1, 1, 1, 1, 1, 624, 16]:
        torch.rand(count, generator=generator)
        _refuse_to_read_past_the_end(generator.get_state())
        torch.randn(3, generator=generator)
        _refuse_to_read_past_the_end(generator.get_state())


def odd_value(rng, value):
    simple = list(ODD)
    if isinstance(value, torch.Tensor):
        shape = [rng.choice([0, 1, 2, 3, size, size + 1]) for size in (*value.shape, 2)][: rng.randrange(5)]
        types = [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64]
        tensors = [
            torch.zeros(shape, dtype=rng.choice(types)),
            value[..., :0] if value.ndim else value[None],
            torch.full_like(value, rng.choice([0, 1, 255])),
            torch.zeros(1).expand(7),
            value.to_sparse(),
        ]
        if value.is_floating_point():
            tensors += [torch.full_like(value, rng.choice([math.nan, math.inf, -math.inf, 1e38, -1.0, 1e-45]))]
        simple += tensors * 6
    return rng.choice(simple)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(400))
def test_any_change(tmp_path, backbone, content, seed):
    """One to three values anywhere become others: a sentence, or a state that can be trained on."""
    changed = copy.deepcopy(content)
    change(changed, random.Random(seed), odd_value)
    learners, problem = make_learners(backbone), None
    torch.save(changed, tmp_path / "step_0000002.pt")
    before = everything(learners)
    with bounded():
        try:
            load_checkpoint(tmp_path / "step_0000002.pt", learners, WORLD)
        except CheckpointError as error:
            problem = str(error)
    if problem is None:
        one_step(learners, 2)
        assert learners.all[0].num_clips >= 2
    else:
        assert len(problem.splitlines()) == 1
        assert same(everything(learners), before)
