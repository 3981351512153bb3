"""Measures one size: the backbone, the decoder (also its plain twin) and a training step, in the same run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evl.backbones import create_backbone
from evl.bench.counts import backbone_macs, counted_by_torch, decoder_macs, total_macs
from evl.bench.measure import describe_machine, matmul_peak, peak_bytes, time_together
from evl.bench.side import plain_side, side_macs
from evl.bench.twin import plain_decoder
from evl.config import BackboneConfig, ModelConfig, RunConfig, replace
from evl.errors import ConfigError, nearest
from evl.models import Classifier, ClassifierHead, EVLDecoder
from evl.models.registry import build_decoder, taps_of
from evl.runtime.distributed import World, pick_device
from evl.runtime.precision import autocast, resolve_precision
from evl.streams import Batch
from evl.training.learner import Learner
from evl.training.learners import Learners
from evl.types import LayerFeatures


@dataclass(frozen=True)
class BenchSize:
    """The sizes of one measurement. ``decoder``: evl or side.

    ``reported_gflops``: per view, as published (docs/method.md section 8, docs/side.md).
    """

    backbone: str
    num_frames: int
    num_layers: int = 4
    batch_size: int = 4  # on a CPU
    cuda_batch_size: int = 64
    num_classes: int = 400
    reported_gflops: float | None = None
    decoder: str = "evl"


B16, L14 = "vit_base_patch16_clip_quickgelu_224.openai", "vit_large_patch14_clip_quickgelu_224.openai"
SIZES = {
    "b16-8f": BenchSize(B16, 8, reported_gflops=444 / 3),
    "b16-32f": BenchSize(B16, 32, batch_size=1, cuda_batch_size=16, reported_gflops=1777 / 3),
    "l14-8f": BenchSize(L14, 8, batch_size=2, cuda_batch_size=32, reported_gflops=2022 / 3),
    "l14-32f": BenchSize(L14, 32, batch_size=1, cuda_batch_size=8, reported_gflops=8088 / 3),
    "l14-336-32f": BenchSize(
        "vit_large_patch14_clip_quickgelu_336.openai", 32, batch_size=1, cuda_batch_size=8, reported_gflops=18_200 / 3
    ),
    "b16-8f-side": BenchSize(B16, 8, num_layers=12, decoder="side", reported_gflops=528 / 3),
    "tiny": BenchSize("evl_clip_tiny", 8, num_layers=3, batch_size=16, cuda_batch_size=256, num_classes=6),
    "dry": BenchSize("evl_clip_tiny", 3, num_layers=2, batch_size=2, cuda_batch_size=2, num_classes=6),
    "dry-side": BenchSize(
        "evl_clip_tiny", 3, num_layers=2, batch_size=2, cuda_batch_size=2, num_classes=6, decoder="side"
    ),
}


FORMS = {"evl": (decoder_macs, plain_decoder), "side": (side_macs, plain_side)}  # (multiply-adds, plain twin)


def find_size(name: str) -> BenchSize:
    """Returns one of ``SIZES``. Raises ConfigError for an unknown name."""
    if name not in SIZES:
        raise ConfigError(f"no size {name!r}{nearest(name, SIZES)}")
    return SIZES[name]


def run_bench(
    size: str,
    *,
    device: torch.device | str | None = None,
    precision: str = "auto",
    batch_size: int | None = None,
    repeats: int = 5,
    compile: bool = False,
    twin: bool = True,
    progress: Callable[[str], None] = lambda what: None,
) -> dict:
    """Measures one of ``SIZES`` and returns a document for JSON; docs/performance.md describes its fields.

    The weights are random: nothing is downloaded, and time does not depend on them. ``device`` None is CUDA if there is
    a CUDA device, else the CPU. Without ``twin`` the plain decoder is not measured, and its numbers and ratios are
    None. ``progress(what)`` is called before each part.
    """
    chosen = find_size(size)
    if precision not in ("auto", "fp32", "bf16", "fp16"):
        raise ConfigError(f"precision {precision!r}; expected auto, fp32, bf16 or fp16")
    device = device if isinstance(device, torch.device) else pick_device(device)
    precision = resolve_precision(precision, device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    batch = batch_size or (chosen.cuda_batch_size if device.type == "cuda" else chosen.batch_size)
    torch.manual_seed(0)
    progress("building the model")
    model = _build(chosen)
    macs, plain = FORMS[chosen.decoder]
    counts = macs(model.decoder, model.backbone.spec, chosen.num_frames)
    by_torch = counted_by_torch(model.backbone, model.decoder, chosen.num_frames, plain)
    frame = backbone_macs(model.backbone)
    model.to(device)
    if compile:
        model.compile()
    clips = torch.randn(batch, chosen.num_frames, 3, *model.backbone.spec.image_size, device=device)
    labels = torch.randint(chosen.num_classes, (batch,), device=device)

    def backbone() -> list:
        with autocast(precision, device):
            return model.features(clips)

    progress("matrix peak")
    peak = matmul_peak(device, dtype, size=_peak_size(size, device), repeats=repeats)
    progress("decoder")
    seconds, memory, feature_bytes = _measure_decoder(
        model.decoder, backbone(), precision, repeats, plain if twin else None
    )
    progress("backbone and training step")
    step, optimizer = _training_step(model, clips, labels, precision)
    seconds |= time_together({"backbone": backbone, "step": step}, device, repeats)
    progress("one live frame and one window")
    seconds |= time_together(_live(model, clips[:1], precision), device, repeats)
    optimizer.zero_grad(set_to_none=True)
    memory["step"] = peak_bytes(step, device)

    view = chosen.num_frames * frame
    fast = total_macs(counts, "fast")
    step_macs = batch * (view + fast + total_macs(counts, "fast backward"))
    return {
        "size": size,
        "machine": describe_machine(device),
        "settings": {
            "backbone": chosen.backbone, "num_frames": chosen.num_frames, "num_layers": chosen.num_layers,
            "batch_size": batch, "precision": precision, "compile": compile, "repeats": repeats,
        },
        "seconds": {
            "backbone": seconds["backbone"],
            "decoder_forward": seconds["fast forward"],
            "decoder_forward_backward": seconds["fast"],
            "twin_forward": seconds.get("twin forward"),
            "twin_forward_backward": seconds.get("twin"),
            "training_step": seconds["step"],
            "live_frame": seconds["live frame"],
            "live_window": seconds["live window"],
        },
        "ratios": {
            "twin_to_fast_forward": _ratio(seconds.get("twin forward"), seconds["fast forward"]),
            "twin_to_fast_forward_backward": _ratio(seconds.get("twin"), seconds["fast"]),
            "decoder_to_backbone": seconds["fast"] / seconds["backbone"],
            "fast_to_twin_peak_memory": _ratio(memory["fast"], memory.get("twin")),
        },
        "peak_bytes": {
            "features": feature_bytes, "decoder": memory["fast"], "twin": memory.get("twin"),
            "training_step": memory["step"],
            "optimizer": sum(x.numel() * x.element_size() for s in optimizer.state.values() for x in s.values()),
        },
        "gflops_a_view": {
            "fast": (view + fast) / 1e9,
            "plain": (view + total_macs(counts, "plain")) / 1e9,
            "plain_by_torch": by_torch / 1e9,
            "reported": chosen.reported_gflops,
            "decoder": {part: {name: n / 1e9 for name, n in count.items()} for part, count in counts.items()},
        },
        "clips_a_second": batch / seconds["step"],
        "images_a_second": batch * chosen.num_frames / seconds["backbone"],
        "matmul_peak_gflops": peak / 1e9,
        "share_of_peak": {
            "backbone": 2 * batch * view / seconds["backbone"] / peak,
            "training_step": 2 * step_macs / seconds["step"] / peak,
        },
    }  # fmt: skip


def _build(size: BenchSize) -> Classifier:
    config = BackboneConfig(name=size.backbone, pretrained=False)
    if size.decoder == "side":
        model = ModelConfig(decoder="side", taps=f"last {size.num_layers}")
        backbone = create_backbone(config, taps_of(model))
        decoder = build_decoder(model, backbone.spec, len(backbone.taps), size.num_frames)
        return Classifier(backbone, decoder, ClassifierHead(decoder.width, size.num_classes))
    backbone = create_backbone(config, size.num_layers)
    spec = backbone.spec
    num_heads = max(1, spec.width // 64)
    decoder = EVLDecoder(spec.width, size.num_layers, num_frames=size.num_frames, grid=spec.grid, num_heads=num_heads)
    return Classifier(backbone, decoder, ClassifierHead(spec.width, size.num_classes))


def _peak_size(size: str, device: torch.device) -> int:
    if device.type == "cuda":
        return 8192
    return 512 if size == "dry" else 2048


def _measure_decoder(
    decoder: nn.Module, features: Sequence[LayerFeatures], precision: str, repeats: int, plain: Callable | None
) -> tuple[dict[str, float], dict[str, int | None], int]:
    """Returns (seconds, peak bytes, bytes of the features) of the decoder, and of its twin on the same features.

    The features are a parameter, so that no other reference keeps them in memory after this.
    """
    tokens = features[0].tokens
    direction = torch.randn(len(tokens), decoder.width, device=tokens.device)

    def twin() -> Tensor:  # under autocast, as plain code is run in half precision
        with autocast(precision, tokens.device):
            return plain(decoder, features)

    forms = {"fast": lambda: decoder(features)} | ({"twin": twin} if plain is not None else {})
    forward = {f"{name} forward": torch.no_grad()(form) for name, form in forms.items()}
    both = {name: _forward_backward(form, decoder, direction) for name, form in forms.items()}
    seconds = time_together({**forward, **both}, tokens.device, repeats)
    memory = {}
    for name, call in both.items():
        decoder.zero_grad(set_to_none=True)  # else the gradients of the previous call would count as used before
        memory[name] = peak_bytes(call, tokens.device)
    return seconds, memory, sum(part.numel() * part.element_size() for one in features for part in one)


def _forward_backward(form: Callable[[], Tensor], decoder: nn.Module, direction: Tensor) -> Callable[[], None]:
    def call() -> None:
        decoder.zero_grad(set_to_none=True)
        (form().float() * direction).sum().backward()

    return call


def _live(model: Classifier, clip: Tensor, precision: str) -> dict[str, Callable[[], object]]:
    """What a live source costs: a new sampled frame in the encoder, and a window of encoded frames in the decoder."""
    with torch.no_grad(), autocast(precision, clip.device):
        features = model.features(clip)

    def frame() -> object:
        with torch.no_grad(), autocast(precision, clip.device):
            return model.features(clip[:, :1])

    @torch.no_grad()
    def window() -> Tensor:
        model.eval()
        return model.decoder(features)

    return {"live frame": frame, "live window": window}


def _training_step(model: Classifier, clips: Tensor, labels: Tensor, precision: str):
    """Returns (a function that takes one training step as ``evl train`` does, its optimizer)."""
    training = dict(steps=10_000, batch_size=len(clips), precision=precision)
    learner = Learner("bench", replace(RunConfig(), training=training), model)
    learners, world = Learners([learner]), World(0, 1, clips.device)

    def step() -> None:
        model.train()
        with autocast(precision, clips.device):
            features = model.features(clips)
        learners.step(0, [Batch(features, labels, tuple(range(len(labels))), {})], world)

    return step, learner.optimizer


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None
