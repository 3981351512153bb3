"""Decoders that learn side by side learn what they would alone, and what a plain loop would teach them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from evl.backbones import create_backbone
from evl.config import RunConfig, replace
from evl.data.loader import StepSampler
from evl.demo.compare import Contender, train_contenders
from evl.errors import RunError
from evl.models import EVLDecoder
from evl.streams.memory import extract
from evl.types import Sample
from tests.helpers import assert_close

SAMPLES = [Sample(f"{i}.mp4", "abc"[i % 3]) for i in range(11)]
ROWS = [0, 1, 2, 3, 4, 5, 6, 7]
CONFIG = replace(
    RunConfig(),
    backbone={"image_size": 16},
    model={"taps": "last 2", "mlp_dropout": 0.0, "head_dropout": 0.0},
    clip={"sampling": "segment", "num_frames": 3},
    training={
        "steps": 5,
        "batch_size": 3,
        "lr": 1e-2,
        "label_smoothing": 0.1,
        "weight_decay": 0.3,
        "warmup_steps": 1,
        "clip_grad_norm": None,
        "log_every": 1,
    },
    evaluation={"num_clips": 1},
)


@pytest.fixture(scope="module")
def setting():
    """(backbone, clips, features in float32) of eleven clips of noise."""
    backbone = create_backbone(CONFIG.backbone, CONFIG.model.taps)
    clips = torch.randn(11, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).half()
    with ThreadPoolExecutor(2) as pool:
        features = extract(backbone, clips, SAMPLES, pool, dtype=torch.float32)
    features.pool = None  # which ends here
    return backbone, clips, features


def contender(setting, **changes):
    return Contender("EVL", "motion", replace(CONFIG, **changes), SAMPLES, setting[0], len(ROWS), setting[0].taps)


def trained(setting, *changes, workers=2):
    found = [contender(setting, **one) for one in changes]
    with ThreadPoolExecutor(workers) as pool:
        train_contenders(found, setting[2], ROWS, pool)
    return found


ATTENTIVE = {"model": {"decoder": "attentive", "probe_blocks": 2}}
NO_CONV = {"model": {"temporal_conv": False}, "training": {"lr": 3e-3}}


def test_together_is_alone(setting, one_thread):
    together = trained(setting, {}, ATTENTIVE, NO_CONV, workers=3)
    for changes, one in zip(({}, ATTENTIVE, NO_CONV), together, strict=True):
        (alone,) = trained(setting, changes, workers=1)
        assert one.learner.curve == alone.learner.curve
        for name, value in alone.model.trainable_state().items():
            assert torch.equal(one.model.trainable_state()[name], value), name


def test_it_is_a_plain_loop_over_live_features(setting, one_thread):
    (one,) = trained(setting, {})
    backbone, clips, _ = setting
    torch.manual_seed(0)
    decoder = EVLDecoder(128, 2, num_frames=3, grid=(2, 2), num_heads=2)
    head = torch.nn.Sequential(torch.nn.LayerNorm(128), torch.nn.Linear(128, 3))
    parameters = [*decoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.3)
    order = StepSampler(8, batch_size=3, first_step=0, last_step=5, seed=0)
    rates = [1e-2 * f for f in (1.0, 1.0, 0.8535534, 0.5, 0.1464466)]
    losses = []
    for rate, batch in zip(rates, order, strict=True):
        rows = [ROWS[place] for _, place in batch]
        labels = torch.tensor([row % 3 for row in rows])
        optimizer.param_groups[0]["lr"] = rate
        logits = head(decoder(backbone(clips[rows].float())))
        loss = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [step for step, *_ in one.learner.curve] == [1, 2, 3, 4, 5]
    assert [loss for _, _, loss, _ in one.learner.curve] == pytest.approx(losses, rel=1e-4)
    # some gradients are zero but for rounding (a key's bias), and Adam gives these the size of any other
    assert_close(one.model.classify(backbone(clips.float())), head(decoder(backbone(clips.float()))), relative=1e-3)


def test_judging_counts_what_the_model_says(setting, one_thread):
    (one,) = trained(setting, {})
    rows = [10, 0, 6]
    found = one.judge(setting[2], rows)
    assert [p.path for p in found.predictions] == ["10.mp4", "0.mp4", "6.mp4"]
    assert [p.label for p in found.predictions] == [1, 0, 0]
    with torch.no_grad():
        wanted = one.model(setting[1][rows].float()).double().softmax(-1)
    assert_close(torch.tensor([p.scores for p in found.predictions], dtype=torch.float64), wanted)
    hits = sum(int(scores.argmax()) == row % 3 for scores, row in zip(wanted, rows, strict=True))
    assert found.metrics.top1 == pytest.approx(100 * hits / 3)
    assert "3 segment frames, 1x1 views" in found.protocol
    assert "3 videos" in found.protocol
    assert one.seconds > 0
    assert not one.model.training


def test_a_curve_has_means_since_the_point_before(setting, one_thread):
    training = {"steps": 40, "warmup_steps": 0, "lr": 1e-6}
    fine, coarse = (
        trained(setting, {"training": {**training, "log_every": every}})[0].learner.curve for every in (1, 3)
    )
    assert len(fine) == 40
    assert [step for step, *_ in coarse] == [*range(3, 40, 3), 40]
    assert coarse[0][2] == pytest.approx(sum(loss for _, _, loss, _ in fine[:3]) / 3, rel=1e-3)
    assert all(0 <= top1 <= 100 for *_, top1 in coarse)
    assert len({round(top1, 3) for *_, top1 in fine}) > 1


def test_a_loss_that_is_no_number_ends_it(setting, one_thread):
    with pytest.raises(RunError, match=r"the loss is nan at step \d"):
        trained(setting, {"training": {"lr": 1e30, "weight_decay": 0.0}})


def test_dropout_is_not_for_threads(setting):
    with pytest.raises(AssertionError, match="random numbers"):
        trained(setting, {"model": {"head_dropout": 0.1}})
