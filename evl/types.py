"""The values that the rooms of evl pass to each other.

Letters of shapes, for all files:
    B videos · V views · T frames · C channels · H W pixels · h w patch grid · L tokens of a frame
    D width · N heads · K head width · Q query tokens · M tapped blocks · Y classes
Pixels are (B,V,T,C,H,W). Frames come before channels, so folding frames into the batch needs no copy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


BACKGROUND = "background"  # the label of time in which nothing happens that has another label


@dataclass(frozen=True)
class Sample:
    """One row of a manifest: a video, or the part of a video between two times.

    ``label`` is a class name, or None without a label. ``group`` is what the video belongs to: a person, a camera, a
    recording. All videos of a group are in the same split.
    """

    path: str
    label: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    group: str | None = None

    @property
    def name(self) -> str:
        """The path, followed by the times of a part: unique in a manifest."""
        if self.start_seconds is None and self.end_seconds is None:
            return self.path
        end = "" if self.end_seconds is None else f"{self.end_seconds:g}"
        return f"{self.path}#t={self.start_seconds or 0:g},{end}"


@dataclass(frozen=True)
class VideoInfo:
    """The facts about a video that were found by decoding it; its header is not trusted.

    ``times_seconds`` holds the presentation time of every frame that decodes, in order. ``width`` and ``height`` are
    those of the picture as a viewer sees it: mirrored left to right if ``is_mirrored``, then turned counter-clockwise
    by ``rotation_degrees`` (0, 90, 180, 270). All four are those of the first frame; the last two are None if they were
    not read. ``clock_jumps`` lists the frames before which the file's clock jumps; ``times_seconds`` goes on there.
    """

    path: str
    times_seconds: tuple[float, ...]
    width: int
    height: int
    codec: str
    rotation_degrees: int | None = None
    is_mirrored: bool | None = None
    clock_jumps: tuple[int, ...] = ()

    @property
    def num_frames(self) -> int:
        return len(self.times_seconds)

    @property
    def duration_seconds(self) -> float:
        """Time from the first frame to the end of the last, which is taken to be as long as the mean frame."""
        if self.num_frames < 2:
            return 0.0
        length = self.times_seconds[-1] - self.times_seconds[0]
        return length * self.num_frames / (self.num_frames - 1)

    @property
    def frames_per_second(self) -> float:
        return self.num_frames / self.duration_seconds if self.duration_seconds > 0 else 0.0


@dataclass(frozen=True)
class Notice:
    """A message about a good video that is read in a way that some users do not expect.

    ``what`` is the same for all such videos and says what to do. ``detail`` is about this video.
    """

    what: str
    detail: str


class LayerFeatures(NamedTuple):
    """The features of one tapped block.

    tokens (B,T,L,D): the block's residual output, prefix tokens (class, registers) first.
    query, key (B,T,L,N,K): the queries and keys that the block's own self-attention uses, before the 1/√K scale.
    """

    tokens: Tensor
    query: Tensor
    key: Tensor


class MappedFeatures(NamedTuple):
    """The features of one tapped block, with neighbor maps in place of query and key.

    tokens (B,T,L,D); maps as ``evl.models.crossframe.neighbor_maps`` returns them, in the dtype of the tokens.
    """

    tokens: Tensor
    maps: Sequence[Tensor]


@dataclass(frozen=True)
class BackboneSpec:
    """The sizes of a backbone that a decoder needs. ``grid`` is (h, w); ``image_size`` is (H, W)."""

    name: str
    width: int
    depth: int
    num_heads: int
    head_width: int
    grid: tuple[int, int]
    num_prefix_tokens: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]

    @property
    def num_tokens(self) -> int:
        return self.num_prefix_tokens + self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class WeightsOrigin:
    """Where a backbone's weights came from, and how they are used.

    ``kind``: ``hub``, ``url``, ``file``, ``embedded`` or ``random``. ``source``: the hub's id, the address, or the
    file's name without its folder. ``layout``: the library whose names the file used ("timm", "OpenAI CLIP", "Hugging
    Face DINOv2", …). ``activation``: that of the blocks' MLPs: ``gelu``, ``gelu_tanh``, ``quick_gelu``, ``silu``, ….
    ``license``: that of the weights, if timm knows it. ``weights_hash`` identifies the weights themselves.
    """

    kind: str
    source: str
    layout: str
    activation: str
    license: str | None = None


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become a backbone's input; saved with each model.

    ``image_size`` is (H, W); ``mean`` and ``std`` are for pixels in 0–1; ``interpolation`` is ``bilinear`` or
    ``bicubic``. ``pixel_aspect``: whether pixels that are not square are made square first.
    """

    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    antialias: bool = False
    pixel_aspect: bool = False


@dataclass(frozen=True)
class EncoderFacts:
    """The description of a frozen encoder, without its weights; a ``FrozenBackbone`` has the same attributes.

    A store, and a model that was trained on a store, contain it to say which encoder made their features.
    ``taps``: numbers of the tapped blocks, shallow to deep, with blocks counted from 1. ``frames_per_map``: the number
    of frames that make one token map; 1, except for video encoders.
    """

    spec: BackboneSpec
    preprocessing: Preprocessing
    taps: tuple[int, ...]
    weights_hash: str
    origin: WeightsOrigin | None = None
    frames_per_map: int = 1


@dataclass(frozen=True)
class Prediction:
    """A model's scores for one video.

    ``scores`` (Y): softmax averaged over views, in the order of ``class_names``. ``label`` is the number of a class, or
    None. Without class names, a class is named by its number.
    """

    path: str
    scores: tuple[float, ...]
    label: int | None = None
    start_seconds: float | None = None  # both times are None if the whole file was read
    end_seconds: float | None = None
    class_names: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def name(self) -> str:
        """The path, followed by the times of a part, as ``Sample.name``."""
        return Sample(self.path, None, self.start_seconds, self.end_seconds).name

    @property
    def class_name(self) -> str:
        """The name of the best class."""
        return self.top(1)[0][0]

    @property
    def score(self) -> float:
        """The score of the best class."""
        return self.top(1)[0][1]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """(name, score) of the k best classes, best first."""
        names = self.class_names or range(len(self.scores))
        return [(str(names[y]), self.scores[y]) for y in self.best(k)]

    def best(self, k: int) -> list[int]:
        """The numbers of the k best classes, best first; of equal scores, the smaller number comes first."""
        return sorted(range(len(self.scores)), key=lambda y: (-self.scores[y], y))[:k]
