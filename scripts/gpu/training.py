"""Runs as ``evl train`` makes them: from videos, stopped and resumed; in fp16; from a store; read back and used."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from made_videos import make_videos
from made_weights import backbone_settings
from settings import Row, Settings, attempt

import evl
from evl.config import RunConfig, replace
from evl.training import Interrupted, train


def run(settings: Settings) -> Iterator[Row]:
    folder = make_videos(settings)
    name, frames, batch, steps = ("evl_clip_tiny", 3, 4, 6)
    if not settings.dry and settings.is_cuda:
        name, frames, batch, steps = ("vit_base_patch16_clip_quickgelu_224", 8, 32, 48)
    config = replace(
        RunConfig(), backbone=backbone_settings(settings, name), clip={"num_frames": frames, "stride": 4},
        model={"taps": "last 2"}, data={"path": str(folder), "val_fraction": 0.1},
        training={"steps": steps, "batch_size": batch, "eval_every": 0, "save_every": steps, "log_every": 2},
        evaluation={"num_clips": 1},
    )  # fmt: skip
    if settings.dry:
        config = replace(config, data={"num_workers": 0})
    yield from attempt("videos", partial(resumed, settings, config))
    fp16 = replace(config, training={"precision": "fp16", "steps": max(4, steps // 4), "save_every": steps})
    yield from attempt("fp16", partial(half, settings, fp16))
    store = settings.work / "store"
    if (store / "index.parquet").exists():
        stored = replace(config, clip={"num_frames": frames}, data={"features": str(store), "path": None})
        if not settings.dry:
            stored = replace(stored, model={"taps": "last 4"})
        yield from attempt("store", partial(from_store, settings, stored))


def resumed(settings: Settings, config: RunConfig) -> Iterator[Row]:
    out, stop = settings.work / "runs" / "resumed", config.training.steps // 2

    def interrupt(report) -> None:
        if report.phase == "training" and report.step == stop:
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C

    stopped = False
    try:
        train(config, out, device=str(settings.device), progress=interrupt)
    except Interrupted:
        stopped = True
    kept = [path.name for path in sorted((out / "checkpoints").glob("*.pt"))]
    first = speeds(out)
    yield {"what": "stopped by Ctrl-C", **first, "kept": ", ".join(kept), "ok": stopped and bool(kept)}
    started_at = []
    result = train(
        None, out, resume=True, device=str(settings.device), progress=lambda one: started_at.append(one.started_at)
    )
    again = evl.load(out, device=str(settings.device))
    sample = next(Path(config.data.path).rglob("*.mp4"))
    scores = evl.predict(again, str(sample)).predictions[0].scores
    yield {
        "what": "resumed", **speeds(out), "started_at": started_at[0], "top1": result.evaluation.metrics.top1,
        "ok": started_at[0] >= stop and abs(sum(scores) - 1) < 1e-2 and not result.damaged,
    }  # fmt: skip


def half(settings: Settings, config: RunConfig) -> Iterator[Row]:
    out = settings.work / "runs" / "fp16"
    train(config, out, device=str(settings.device))
    (newest,) = sorted((out / "checkpoints").glob("*.pt"))[-1:]
    scaler = torch.load(newest, weights_only=True, map_location="cpu")["learners"][0]["scaler"]
    ok = not settings.is_cuda or scaler.get("scale", 0) >= 1
    yield {"what": "fp16 with its scaler", **speeds(out), "scale": scaler.get("scale"), "ok": ok}


def from_store(settings: Settings, config: RunConfig) -> Iterator[Row]:
    out = settings.work / "runs" / "stored"
    result = train(config, out, device=str(settings.device))
    yield {"what": "from a store", **speeds(out), "top1": result.evaluation.metrics.top1, "ok": not result.damaged}


def speeds(out: Path) -> dict[str, object]:
    """Of the newest line of metrics.jsonl that reports some."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    told = [line for line in lines if "clips_per_second" in line]
    if not told:
        return {}
    best = max(told[len(told) // 2 :], key=lambda line: line["step"])
    names = {"step": "step", "loss": "loss", "clips_per_second": "clips_a_second", "wait_share": "waiting_for_data"}
    return {new: best[old] for old, new in names.items()}
