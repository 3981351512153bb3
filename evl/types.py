"""What travels between rooms.

Legend of shapes, for all files:
    B videos · V views · T frames · C channels · H W pixels · h w patch grid · L tokens a frame
    D width · N heads · K head width · Q query tokens · M decoder layers · Y classes
Pixels are (B,V,T,C,H,W): frames before channels, so folding frames into the batch costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One labelled video of a manifest. ``label`` is a class name; times cut an untrimmed file, in seconds. ``group``:
    what it belongs to (a person, a camera, a recording); videos of one group are on one side of a split."""

    path: str
    label: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    group: str | None = None

    @property
    def name(self) -> str:
        """The path, and the part of the file if it is one: unique in a manifest."""
        if self.start_seconds is None and self.end_seconds is None:
            return self.path
        end = "" if self.end_seconds is None else f"{self.end_seconds:g}"
        return f"{self.path}#t={self.start_seconds or 0:g},{end}"


@dataclass(frozen=True)
class VideoInfo:
    """What decoding a file told: never what its header claims.

    ``times_seconds`` holds the presentation time of every frame that decodes, in order; ``width`` and ``height`` are
    those of the picture as a viewer sees it: mirrored left to right if the file says so (``is_mirrored``), then turned
    counter-clockwise by ``rotation_degrees`` (0, 90, 180, 270). Both are of the file's first frame, and None where
    nothing was asked about them. ``clock_jumps``: frames in front of which the file's clock jumps; times go on there.
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
        """Time from the first frame to the end of the last, taking the last as long as the mean one."""
        if self.num_frames < 2:
            return 0.0
        length = self.times_seconds[-1] - self.times_seconds[0]
        return length * self.num_frames / (self.num_frames - 1)

    @property
    def frames_per_second(self) -> float:
        return self.num_frames / self.duration_seconds if self.duration_seconds > 0 else 0.0


@dataclass(frozen=True)
class Notice:
    """Something about a video that is good, but not read as everybody would expect. ``what``: said of all such videos
    alike, with what to do; ``detail``: of this one."""

    what: str
    detail: str


class LayerFeatures(NamedTuple):
    """What one tapped block says of a clip.

    tokens (B,T,L,D): the block's residual output, prefix tokens (class, registers) first.
    query, key (B,T,L,N,K): that block's own self-attention queries and keys as its attention uses them,
    before the 1/√K scale.
    """

    tokens: Tensor
    query: Tensor
    key: Tensor


class MappedFeatures(NamedTuple):
    """LayerFeatures whose query and key are made into what a decoder needs of them already: nothing in that learns.

    tokens (B,T,L,D), and ``maps`` as ``evl.models.crossframe.neighbor_maps`` makes them, in the type of the tokens.
    """

    tokens: Tensor
    maps: Sequence[Tensor]


@dataclass(frozen=True)
class BackboneSpec:
    """All that a decoder needs to know of a backbone. ``grid`` is (h, w); ``image_size`` is (H, W)."""

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
    """Where a backbone's weights came from, and what decides what they compute.

    ``kind``: ``hub``, ``url``, ``file``, ``embedded`` or ``random``. ``source``: the hub's id, the address, or the
    file's name without its folder. ``layout``: whose names the file used ("timm", "OpenAI CLIP", "Hugging Face
    DINOv2", …). ``activation``: of the blocks' MLPs, as built: ``gelu``, ``gelu_tanh``, ``quick_gelu``, ``silu``, ….
    ``licence``: of the weights, where timm tells it. The weights themselves are named by ``weights_hash``.
    """

    kind: str
    source: str
    layout: str
    activation: str
    license: str | None = None


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become a backbone's input: part of what a model is, saved with it.

    ``image_size`` is (H, W); ``mean`` and ``std`` are of pixels in 0–1; ``interpolation`` is ``bilinear`` or
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
    """What there is to know of a frozen encoder without having it: what features in a store, or a model that was
    trained on them, say of where they come from. A ``FrozenBackbone`` has the same attributes.

    ``taps``: numbers of the tapped blocks, counted from 1, shallow to deep. ``frames_per_map``: how many frames make
    one token map, 1 but for video encoders.
    """

    spec: BackboneSpec
    preprocessing: Preprocessing
    taps: tuple[int, ...]
    weights_hash: str
    origin: WeightsOrigin | None = None
    frames_per_map: int = 1


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video. ``scores`` (Y): softmax averaged over views, in the order of ``class_names``;
    ``label`` an index or None. Without class names, a class is named by its number."""

    path: str
    scores: tuple[float, ...]
    label: int | None = None
    start_seconds: float | None = None  # where only a part of the file was looked at
    end_seconds: float | None = None
    class_names: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def name(self) -> str:
        """The path, and the part of the file if it is one, as ``Sample.name``."""
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
        """(name, score) of the k best classes, in the order of ``best``."""
        names = self.class_names or range(len(self.scores))
        return [(str(names[y]), self.scores[y]) for y in self.best(k)]

    def best(self, k: int) -> list[int]:
        """The numbers of the k best classes, best first; ties go to the smaller number."""
        return sorted(range(len(self.scores)), key=lambda y: (-self.scores[y], y))[:k]
