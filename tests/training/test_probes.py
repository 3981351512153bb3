"""Baselines go the whole way: trained, resumed, saved, loaded, judged, asked."""

import json

import pytest
import torch
from safetensors.torch import load_file

import evl
from evl.config import ModelConfig, RunConfig, replace
from evl.errors import ConfigError
from evl.saving import build_classifier
from evl.saving.build import build_decoder
from evl.training import train
from evl.types import BackboneSpec, LayerFeatures
from tests.helpers import run_command

pytestmark = pytest.mark.usefixtures("one_thread")

BASELINES = [
    ({"decoder": "linear"}, "fp32"),
    ({"decoder": "attentive", "probe_blocks": 1, "probe_positions": False}, "fp32"),
    ({"decoder": "attentive"}, "bf16"),
]


@pytest.mark.parametrize(("model", "precision"), BASELINES, ids=str)
def test_the_whole_way(tiny_config, videos, tmp_path, capsys, model, precision):
    (tmp_path / "config.yaml").write_text(tiny_config.to_yaml())
    run = tmp_path / "run"
    settings = [f"model.{name}={json.dumps(value)}" for name, value in model.items()]
    code, _, _ = run_command(
        capsys, "train", "--config", tmp_path / "config.yaml", "--out", run,
        "--set", *settings, f"training.precision={precision}",
    )  # fmt: skip
    assert code == 0
    one, other = evl.load(run), evl.load(run / "best")
    clips = torch.randn(2, 3, 3, 32, 32)
    assert torch.equal(one(clips), evl.load(run)(clips))
    assert one.card.config.model.decoder == model["decoder"] == other.card.config.model.decoder
    code, stdout, _ = run_command(capsys, "evaluate", run, "--data", videos, "--json")
    assert code == 0
    assert json.loads(stdout)["num_videos"] == 12
    video = sorted(videos.rglob("*.mp4"))[0]
    assert run_command(capsys, "predict", run, video)[0] == 0


def test_resume_is_bit_exact(tiny_config, tmp_path):
    config = replace(tiny_config, model={"decoder": "attentive", "probe_blocks": 2})
    train(config, tmp_path / "whole")

    class Enough(Exception):
        pass

    def stop(progress):
        if (progress.phase, progress.step) == ("training", 5):  # a checkpoint was written at 4
            raise Enough

    with pytest.raises(Enough):
        train(config, tmp_path / "parts", progress=stop)
    assert not (tmp_path / "parts/model.json").exists()
    train(None, tmp_path / "parts", resume=True)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_sizes_come_from_the_backbone():
    spec = BackboneSpec("dinov3-like", 384, 12, 4, 96, (3, 5), 5, (48, 80), (16, 16))

    def built(**model):
        return build_decoder(ModelConfig(decoder="attentive", **model), spec, 1, 2)

    probe = built()
    assert (len(probe.blocks), probe.attention.num_heads, probe.mlp.fc1.out_features) == (3, 384 // 64, 4 * 384)
    assert (probe.positions.grid, len(probe.positions.time)) == ((3, 5), 2)
    assert probe([LayerFeatures(torch.randn(1, 2, 20, 384), None, None)]).shape == (1, 384)
    assert built(probe_positions=False, probe_blocks=1, num_heads=4).attention.num_heads == 4
    assert built(probe_positions=False).positions is None
    assert built(probe_blocks=2, mlp_dropout=0.3, mlp_ratio=2).blocks[0].mlp.dropout.p == 0.3
    with pytest.raises(ConfigError, match="num_heads 5 does not divide"):
        built(num_heads=5)


@pytest.mark.parametrize(("taps", "read"), [("all", 5), ("last 2", 5), ([1, 3], 3)])
def test_a_probe_reads_the_deepest_tapped_block(taps, read):
    config = replace(
        RunConfig(),
        backbone={"image_size": [16, 24]}, clip={"num_frames": 2}, model={"decoder": "attentive", "taps": taps},
    )  # fmt: skip
    model = build_classifier(config, ["a", "b"])
    assert model.backbone.taps == (read,)
    assert model(torch.randn(1, 2, 3, 16, 24)).shape == (1, 2)
