"""The same numbers on this device: against golden files, and against float32 on the CPU.

Differences are norms over norms. Allowed: float32 with TF32 off 1e-5 (gradients 1e-4: they are sums over many more
terms; twelve steps of AdamW 1e-4). bf16 and fp16: eight times the type's eps in a decoder, whose reference reads the
same narrow features, and 5 % or 1 % in an encoder.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from settings import DTYPES, Row, Settings, attempt, compared, difference, exact_float32
from stepping import stepper
from torch import Tensor, nn

import evl
from evl.backbones import create_backbone
from evl.config import BackboneConfig, ModelConfig, RunConfig, TrainingConfig, replace
from evl.models.decoder import release_key_to_own
from evl.runtime.distributed import World
from evl.runtime.precision import autocast
from evl.saving import build_classifier
from evl.saving.build import build_decoder
from evl.streams import Batch
from evl.training.learner import Learner
from evl.training.learners import Learners
from evl.types import BackboneSpec, LayerFeatures
from tests.goldens import DECODERS, LAYOUTS, load_decoder, write_layout
from tests.helpers import GOLDEN

OUTPUT = {name: 1e-5 if name == "fp32" else 8 * torch.finfo(dtype).eps for name, dtype in DTYPES.items()}
GRADIENT = {**OUTPUT, "fp32": 1e-4}
ENCODER = {"fp32": 1e-5, "bf16": 5e-2, "fp16": 1e-2}
DEEP_ENCODER = {**ENCODER, "fp32": 5e-5}  # twelve blocks of 768 channels add up more rounding than two of 16
STEPS = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 5e-3}
KINDS = {
    "evl": ModelConfig(),
    "evl, 3 queries": ModelConfig(num_queries=3),
    "evl, 40 queries": ModelConfig(num_queries=40),  # enough that keys and values are projected
    "evl, nothing temporal": ModelConfig(temporal_conv=False, temporal_position=False, cross_frame=False),
    "linear": ModelConfig(decoder="linear"),
    "attentive": ModelConfig(decoder="attentive"),
    "attentive, 1 block": ModelConfig(decoder="attentive", probe_blocks=1),
}
RELEASE = GOLDEN / "release_checkpoint_tiny.pth", GOLDEN / "openai_clip_tiny.pt"


def run(settings: Settings, which: str = "eager") -> Iterator[Row]:
    exact_float32()
    if which == "compiled":
        for kind in ("evl", "attentive"):
            yield from attempt(f"decoder {kind}, compiled", partial(decoder_kind, settings, kind, compiled=True))
        return
    for precision in DTYPES:
        yield from attempt("release checkpoint", partial(released, settings, precision), precision=precision)
    for name in DECODERS:
        yield from attempt(name, partial(golden_decoder, settings, name), precision="fp32")
    for kind in KINDS:
        yield from attempt(f"decoder {kind}", partial(decoder_kind, settings, kind))
    for path in LAYOUTS[:: 4 if settings.dry else 1]:
        yield from attempt(path.stem, partial(layout, settings, path))
    yield from attempt("real size", partial(real_size, settings))
    yield from attempt("learners together", partial(learners_together, settings))


def released(settings: Settings, precision: str) -> Iterator[Row]:
    """Logits, and twelve training steps, of the original release."""
    device = settings.device
    golden = load_file(GOLDEN / "model_tiny.safetensors")
    model = evl.load_release(*RELEASE).to(device)
    with torch.no_grad(), autocast(precision, device):
        logits = model(golden["video"].transpose(1, 2).to(device))
    yield compared("release: logits", difference(logits, golden["logits"]), ENCODER[precision], precision=precision)
    with safe_open(GOLDEN / "train_tiny.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["config"])
    golden = load_file(GOLDEN / "train_tiny.safetensors")
    model.train()
    training = TrainingConfig(
        steps=facts["steps"], batch_size=facts["batch"], lr=facts["lr"], weight_decay=facts["weight_decay"],
        precision=precision,
    )  # fmt: skip
    # by default the scale begins so high that first steps are skipped until it has come down: not the same steps
    _, take_step = stepper(model, dataclasses.replace(RunConfig(), training=training), device, scale=256.0)
    losses = []
    for step in range(facts["steps"]):
        clips, labels = golden["video"][step].float().transpose(1, 2).to(device), golden["labels"][step]
        total, count, _ = take_step(clips, labels, step)
        losses.append(total / count)
    error = difference(torch.stack(losses), golden["losses"])
    yield compared("release: losses of twelve steps", error, STEPS[precision], precision=precision)


def golden_decoder(settings: Settings, name: str) -> Iterator[Row]:
    """Output and gradients of the original decoder."""
    decoder, features, tensors, _ = load_decoder(name)
    output, gradients = forward_backward(decoder, features, tensors["grad_output"][:, 0], settings.device)
    wanted = {release_key_to_own(k.removeprefix("grad.")): v for k, v in tensors.items() if k.startswith("grad.")}
    wanted = {key: value.reshape(gradients[key].shape) for key, value in wanted.items()}
    yield compared(f"golden {name}", difference(output, tensors["output"][:, 0]), OUTPUT["fp32"], precision="fp32")
    error = worst({key: gradients[key] for key in wanted}, wanted)
    yield compared(f"golden {name}: gradients", error, GRADIENT["fp32"], precision="fp32")


def decoder_kind(settings: Settings, kind: str, compiled: bool = False) -> Iterator[Row]:
    """Output and every gradient against float32 on the CPU, which reads the same (narrow) features."""
    grid, width, heads, frames, layers = (4, 5), 48, 3, 5, 2
    spec = BackboneSpec("made", width, 4, heads, width // heads, grid, 1, (64, 80), (16, 16))
    torch.manual_seed(0)
    decoder = build_decoder(KINDS[kind], spec, layers, frames).eval()
    for name, parameter in decoder.named_parameters():
        is_norm = "norm" in name and name.endswith("weight")
        nn.init.normal_(parameter, mean=float(is_norm), std=0.15)

    def tokens(*last: int) -> Tensor:
        return torch.randn(2, frames, spec.num_tokens, *last)

    scale = torch.logspace(-0.5, 0.5, width)  # channels of different size, and a mean, as a residual stream has them
    made = [LayerFeatures((tokens(width) + 0.5) * scale, 2 * tokens(heads, width // heads),
                          2 * tokens(heads, width // heads)) for _ in range(layers)]  # fmt: skip
    direction = torch.randn(2, decoder.width)
    what = f"decoder {kind}{', compiled' if compiled else ''}"
    yield from precisions(settings, what, decoder, made, direction, compiled)


def precisions(
    settings: Settings, what: str, decoder, made: Sequence[LayerFeatures], direction, compiled: bool = False
) -> Iterator[Row]:
    for precision, dtype in DTYPES.items():
        narrow = [LayerFeatures(*(part.to(dtype) for part in one)) for one in made]
        wide = [LayerFeatures(*(part.float() for part in one)) for one in narrow]
        wanted, wanted_gradients = forward_backward(decoder, wide, direction, torch.device("cpu"))
        output, gradients = forward_backward(decoder, narrow, direction, settings.device, compiled)
        yield compared(what, difference(output, wanted), OUTPUT[precision], precision=precision)
        if wanted_gradients:
            error = worst(gradients, wanted_gradients)
            yield compared(f"{what}: gradients", error, GRADIENT[precision], precision=precision)


def forward_backward(decoder, features, direction, device, compiled: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    decoder = copy.deepcopy(decoder).to(device)
    if compiled:
        decoder.compile()
    output = decoder([LayerFeatures(*(part.to(device) for part in one)) for one in features])
    parameters = dict(decoder.named_parameters())
    if parameters:
        (output.float() * direction.to(device)).sum().backward()
    return output, {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}


def worst(gradients: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest difference; a gradient that is all but nothing counts against 1 % of the largest one. The key's bias
    has none by symmetry: what stands there is rounding."""
    largest = max(value.norm().item() for value in wanted.values())
    return max(difference(gradients[key], value, floor=0.01 * largest) for key, value in wanted.items())


def layout(settings: Settings, path) -> Iterator[Row]:
    """A family of encoders, as another library computes it (tokens), and as the CPU does (queries, keys)."""
    checkpoint, frames, tokens, metadata = write_layout(settings.work / path.stem, path)
    backbone = create_backbone(BackboneConfig(metadata["architecture"], weights=str(checkpoint)), 2)
    clips = frames[:, None]
    exact = backbone(clips)
    backbone.to(settings.device)
    for precision in DTYPES:
        with autocast(precision, settings.device):
            got = backbone(clips.to(settings.device))
        errors = [difference(one.tokens[:, 0], wanted) for one, wanted in zip(got, tokens, strict=True)]
        yield compared(f"encoder {path.stem}: tokens", max(errors), ENCODER[precision], precision=precision)
        errors = [max(difference(one.query, cpu.query), difference(one.key, cpu.key))
                  for one, cpu in zip(got, exact, strict=True)]  # fmt: skip
        yield compared(f"encoder {path.stem}: queries, keys", max(errors), ENCODER[precision], precision=precision)


def real_size(settings: Settings) -> Iterator[Row]:
    """B/16 and its decoder, where the device takes other kernels than for what is tiny."""
    name, size = ("evl_clip_tiny", 64) if settings.dry else ("vit_base_patch16_clip_quickgelu_224", 224)
    torch.manual_seed(0)
    backbone = create_backbone(BackboneConfig(name, pretrained=False), 2)
    clips = torch.randn(1, 4, 3, size, size)
    exact = backbone(clips)
    spec = backbone.spec
    decoder = build_decoder(ModelConfig(), spec, 2, 4).eval()
    for name, parameter in decoder.named_parameters():
        if "temporal" in name:  # which starts as zero, and would hide what it does
            nn.init.normal_(parameter, std=0.02)
    yield from precisions(settings, "decoder, real size", decoder, exact, torch.randn(1, spec.width))
    backbone.to(settings.device)
    for precision in DTYPES:
        with autocast(precision, settings.device):
            got = backbone(clips.to(settings.device))
        for part in LayerFeatures._fields:
            error = max(difference(getattr(one, part), getattr(cpu, part)) for one, cpu in zip(got, exact, strict=True))
            yield compared(f"encoder, real size: {part}", error, DEEP_ENCODER[precision], precision=precision)


def learners_together(settings: Settings) -> Iterator[Row]:
    """Several learners in one call, as a sweep trains them, against one after the other."""
    config = replace(
        RunConfig(), backbone={"name": "evl_clip_tiny"}, clip={"num_frames": 3},
        model={"taps": "last 2", "mlp_dropout": 0.0, "head_dropout": 0},
        training={"steps": 4, "batch_size": 4, "precision": "fp32"},
    )  # fmt: skip
    torch.manual_seed(0)
    backbone = create_backbone(config.backbone, config.model.taps).to(settings.device)
    features = backbone(torch.randn(4, 3, 3, 64, 64, device=settings.device))
    labels = torch.arange(4, device=settings.device)
    models: dict[str, list[nn.Module]] = {}
    for name, together in (("together", None), ("alone", 1)):
        models[name] = [build_classifier(config, list("abcd"), backbone=backbone, seed=g).to(settings.device)
                        for g in range(3)]  # fmt: skip
        learners = [Learner(str(g), config, model) for g, model in enumerate(models[name])]
        group = Learners(learners, together=together)
        group.train()
        for step in range(2):
            group.step(step, [Batch(features, labels, (0, 1, 2, 3), {})], World(0, 1, settings.device))
    with torch.no_grad():
        outputs = {name: torch.stack([model.eval().classify(features) for model in group])
                   for name, group in models.items()}  # fmt: skip
    error = difference(outputs["together"], outputs["alone"])
    yield compared("three learners, two steps: together and alone", error, 1e-3, precision="fp32")
