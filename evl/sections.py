"""The sections of a run's config: frozen dataclasses, checked when made. ``evl.config.RunConfig`` has one of each."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from evl.decoders import (
    NEVER_LEFT_OVER,
    OPTIONS,
    decoder_with,
    find_decoder,
    foreign_setting,
    impossible,
    starts_with,
)
from evl.runtime.files import expand_home
from evl.runtime.parallel import MOST_WORKERS

checked = dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))

Positive = Annotated[int, Field(gt=0)]
# Upper bounds are far above what is useful. They stop a damaged or hostile file that asks for endless work.
Side = Annotated[int, Field(gt=0, le=4096)]
Few = Annotated[int, Field(gt=0, le=1000)]
Many = Annotated[int, Field(gt=0, le=1_000_000)]
NotNegative = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
DecoderName = Annotated[str, AfterValidator(lambda name: find_decoder(name) and name)]  # or ValueError
ImportPaths = Annotated[tuple[str, ...], BeforeValidator(lambda paths: (paths,) if isinstance(paths, str) else paths)]
FilePath = Annotated[str, AfterValidator(expand_home)]  # ~ is the home folder


# around class names: few, for films and pictures of people doing things and of things happening
PROMPTS = ("a video of {}.", "a video of a person {}.", "a photo of {}.", "a photo of a person {}.")


@checked
class BackboneConfig:
    """The frozen encoder. ``name``: a timm name, ``evl_clip_tiny`` (embedded: small, trained on drawings), or
    ``openai_clip`` (any of OpenAI's archives, sizes read from its tensors; needs ``weights``)."""

    name: str = "evl_clip_tiny"
    weights: FilePath | None = None  # a local file instead of timm's download
    pretrained: bool = True  # False: random weights, to compare with
    image_size: Side | tuple[Side, Side] | None = None  # None: the weights' own; else (H, W)
    patch_size: Side | None = None  # FlexiViT only, whose patches may have any size


@checked
class ModelConfig:
    """The trainable part. None: taken from the backbone (heads 64 wide, or the backbone's own number).

    ``evl.decoders`` lists the decoders, and which of these settings each has. Settings that the chosen decoder does not
    have are refused.
    """

    # one of evl.decoders.DECODERS, or my_module:MyDecoder; zero_shot: nothing to train, classes by their names. Where
    # none is named: side, but evl if settings are given that side lacks and evl has
    decoder: DecoderName = "side"
    # blocks that are read: "last 4", "all", or numbers counted from 1; evl has a layer for each, probes read the last
    # side reads all blocks if none are given; in a list for side, 0 is what enters block 1
    taps: Annotated[str, Field(pattern=r"^(all|last [1-9]\d{0,3})$")] | tuple[NotNegative, ...] = "last 4"
    num_heads: Few | None = None
    qkv_width: Annotated[int, Field(gt=0, le=65_536)] | None = None
    mlp_ratio: Annotated[float, Field(gt=0, le=1000)] = 4.0
    mlp_dropout: Dropout = 0.5
    head_dropout: Dropout = 0.5
    temporal_conv: bool = True
    temporal_position: bool = True
    cross_frame: bool = True
    num_queries: Few = 1
    query_init: Literal["zero", "normal"] = "normal"
    probe_blocks: Few | None = None  # of the attentive probe; None: 4, as V-JEPA 2; 1: the readout alone
    probe_positions: bool | None = None  # whether tokens get their place and time; None: yes
    # training starts at the zero-shot logits, and learns what to add to them; needs a backbone with a text tower
    zero_shot_start: bool = False
    prompts: tuple[str, ...] = PROMPTS  # of zero-shot; {} stands for the class name
    # of the side network (docs/side.md): the width d of its own token map; None: about 5/12 of the encoder's
    side_width: Annotated[int, Field(gt=0, le=65_536)] | None = None
    side_norm: Literal["batch", "layer", "rms", "clip", "channel", "scale"] | None = None  # None: channel
    side_readout: Literal["mean", "query"] | None = None  # None: mean
    causal: bool = False  # no frame reads frames after it, so frames can come one by one
    # of a decoder from outside: the arguments by name that it is made with, besides spec, num_frames and num_layers
    options: dict[str, JsonValue] = dataclasses.field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _only_own_settings(cls, given: Any) -> Any:
        """Refuses arguments that the decoder does not have, also those that equal the default.

        Settings that are not given get the decoder's own defaults (``starts_with``).
        """
        is_call = isinstance(given, ArgsKwargs)  # from a dict, ``replace`` and ``from_yaml`` look at the settings
        if is_call:
            names = [one.name for one in dataclasses.fields(cls)]
            given = {**dict(zip(names, given.args, strict=False)), **(given.kwargs or {})}
        if not isinstance(given, Mapping):
            return given
        said = chosen(cls, given)
        decoder = given.get("decoder", decoder_with(said))
        if is_call:
            problem = foreign_setting(decoder, said)
            require(problem is None, problem)
        return {"decoder": decoder, **starts_with(decoder), **given} if isinstance(decoder, str) else given

    def __post_init__(self):
        problem = impossible(self.decoder, self.taps, causal=self.causal, side_norm=self.side_norm)
        require(problem is None, problem)
        why_not = find_decoder(self.decoder).why_not
        always = [name for name in (*why_not, *NEVER_LEFT_OVER, OPTIONS)
                  if getattr(self, name) != getattr(ModelConfig, name, {})]  # fmt: skip
        problem = foreign_setting(self.decoder, always)
        require(problem is None, problem)
        told = self.prompts and all("{}" in prompt for prompt in self.prompts)
        require(told, "every one of prompts must have {} in it, where the class name stands")
        require(
            not (self.zero_shot_start and self.decoder == "zero_shot"),
            "zero_shot_start is for decoders that are trained, not for zero_shot itself",
        )


@checked
class ClipConfig:
    """Which frames make a clip, and how a frame becomes the backbone's input."""

    sampling: Literal["dense", "segment"] = "dense"
    num_frames: Annotated[int, Field(gt=0, le=4096)] = 8
    stride: Many = 16  # frames between neighbors; dense sampling only
    # dense sampling by time: moments of a clip in a second, whatever the video's own rate; takes the place of stride
    frames_per_second: Annotated[float, Field(gt=0, le=1000)] | None = None
    # what a training clip shows past the end of a short video (evaluation: always the video's last frame)
    past_end: Literal["last_sampled_frame", "last_video_frame"] = "last_sampled_frame"
    interpolation: Literal["auto", "bilinear", "bicubic"] = "auto"  # auto: as the weights were trained
    antialias: bool = True

    def __post_init__(self):
        by_time = self.sampling == "dense" or self.frames_per_second is None
        require(by_time, "frames_per_second goes with sampling=dense; sampling=segment spreads a clip over the video")

    @property
    def spacing(self) -> str:
        """How far its frames are from each other, in words."""
        if self.sampling == "segment":
            return "one of each equal part of the video"
        return f"stride {self.stride}" if self.frames_per_second is None else f"{self.frames_per_second:g} a second"


@checked
class AugmentConfig:
    """One draw a clip, the same for all its frames."""

    rand_augment: str | None = "rand-m7-n4-mstd0.5-inc1"  # timm's notation; null: none
    crop_area: tuple[Probability, Probability] = (0.08, 1.0)  # share of the picture
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height
    # auto: 0.5, but 0 where class names tell directions; pairs: 0.5, exchanging the labels of left/right pairs
    flip: Probability | Literal["auto", "pairs"] = "auto"
    erasing: Probability = 0.0
    jitter_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0  # by which a segment's ends move, in or out

    def __post_init__(self):
        require(0 < self.crop_area[0] <= self.crop_area[1], "crop_area must be (low, high), 0 < low <= high")
        require(0 < self.crop_ratio[0] <= self.crop_ratio[1], "crop_ratio must be (low, high), low > 0")


@checked
class DataConfig:
    """Where videos and labels come from."""

    path: FilePath | None = None  # a manifest, a folder with a folder per class, or a published data set
    # auto: recognised by the annotation files; folder: a folder per class, whatever else lies there, with or without
    # folders of splits; classes: each folder is a class, even if it is called train
    layout: Literal[
        "auto", "folder", "classes", "kinetics", "ssv2", "ssv1", "hmdb51", "ucf101", "diving48", "thumos14",
        "labelstudio", "activitynet", "boris", "elan", "videofolder"
    ] = "auto"  # fmt: skip
    split_number: Annotated[int, Field(ge=1, le=3)] = 1  # which of the published splits of hmdb51 and ucf101
    val_path: FilePath | None = None  # None: the split in ``path``, else a seeded part of it
    root: FilePath | None = None  # where a manifest's paths start, or a layout's videos lie below; None: its folder
    class_names: FilePath | None = None  # a file with one class name a line, where labels are numbers
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    # what is never divided between training and validation, besides files: folder (that a video lies in), or a regular
    # expression with one group, searched in a name (with a slash: in a path), such as "_(g[0-9]+)_"; None: column group
    group_by: str | None = None
    background: Annotated[float, Field(gt=0, le=1000)] | None = None  # clips per segment (evl.data.untrimmed)
    background_margin: Annotated[float, Field(ge=0)] = 0.5  # seconds between background and the nearest segment
    max_damaged_share: Probability = 0.1  # of the training videos; more stops the run
    verify: bool = True  # a training video is decoded whole when it is first met, which finds damage anywhere in it
    index: FilePath | None = None  # written by evl check --index: its files are known, and verified
    decoder: Literal["pyav", "torchcodec", "torchcodec-cuda"] = "pyav"  # torchcodec: an optional extra
    # pixels that are not square are made square first, so that shapes are those a viewer sees; saved with the model
    pixel_aspect: bool = True
    num_workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] | None = None  # None: one a core, at most 16
    # a store made by evl extract: training and validation read it instead of videos, which it lists itself
    features: FilePath | None = None

    def __post_init__(self):
        if self.group_by in (None, "folder"):
            return
        try:
            num_groups = re.compile(self.group_by).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"group_by must be folder or a regular expression, which this is not: {error}") from None
        require(
            num_groups == 1,
            "group_by must be folder, or a regular expression with one group in parentheses, such as _(g[0-9]+)_",
        )


@checked
class TrainingConfig:
    """AdamW with a cosine to zero."""

    steps: Positive | None = None  # None: 30 epochs, but at least 200 steps; the number is written down
    batch_size: Many = 16  # clips a step, over all processes and accumulation
    accumulation: Many = 1  # micro-batches a step
    repeated_augmentation: Few = 1  # draws of each video in a batch, which has batch_size / this many videos
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_steps: NotNegative | None = None  # None: a sixteenth of the steps
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0  # null: gradients are not clipped
    label_smoothing: Dropout = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 on CUDA, fp32 on CPU
    compile: bool = False  # by torch.compile: minutes at the start, faster steps after
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    init: FilePath | None = None  # a saved model whose trained weights are the start; sizes may differ
    eval_every: NotNegative = 500  # steps; 0: only at the end
    select_by: str = "top1"  # the metric of the validation videos that best/ and a sweep are chosen by
    save_every: Positive = 500  # steps
    keep_last: Positive = 2  # checkpoints
    log_every: Positive = 20  # steps

    def __post_init__(self):
        repeats = self.repeated_augmentation
        require(self.batch_size % repeats == 0, f"batch_size must be a multiple of repeated_augmentation ({repeats})")
        fits = self.steps is None or self.warmup < self.steps
        require(fits, f"warmup_steps ({self.warmup_steps}) must be below steps ({self.steps})")

    @property
    def warmup(self) -> int:
        """The number of steps in which the learning rate rises."""
        return (self.steps or 0) // 16 if self.warmup_steps is None else self.warmup_steps


@checked
class EvaluationConfig:
    """Views a video: ``num_clips`` × ``num_crops``, scores averaged."""

    num_clips: Few = 3
    num_crops: Literal[1, 3] = 1
    batch_size: Many = 8  # videos at a time
    metrics: ImportPaths = ()  # of your own, besides evl's: my_module:my_metric (docs/adding-a-metric.md)


def chosen(part: ModelConfig | ClipConfig | type[ModelConfig], given: Mapping[str, Any]) -> list[str]:
    """Those of the fields ``given`` of a section that have a value: None and {} are none. [] where all are given, as in
    what ``to_yaml`` writes: nobody chose each of these."""
    chosen = [name for name, value in given.items() if value is not None and value != {}]
    return chosen if len(given) < len(dataclasses.fields(part)) else []


def require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)  # pydantic turns it into a ValidationError with the field's place
