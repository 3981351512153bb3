"""The contract of a frozen backbone."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from evl.decoders import START
from evl.errors import BackboneError
from evl.runtime.precision import without_autocast, without_gradients
from evl.types import BackboneSpec, EncoderFacts, LayerFeatures, Preprocessing, WeightsOrigin

Taps = int | str | Sequence[int]


def tapped_blocks(taps: Taps, depth: int, name: str = "the backbone") -> tuple[int, ...]:
    """Returns the block numbers, counted from 1, for ``4`` or ``"last 4"``, ``"all"``, or a list of rising numbers.

    0 stands for what enters block 1. ``"start and last 4"`` has the block before the last 4, too, and ``"start and
    all"`` has 0. Raises BackboneError if the backbone has no such blocks.
    """
    if isinstance(taps, str) and taps.startswith(START):
        blocks = tapped_blocks(taps.removeprefix(START), depth, name)
        return (blocks[0] - 1, *blocks)
    if isinstance(taps, str):
        taps = depth if taps == "all" else int(taps.removeprefix("last "))
    if isinstance(taps, int):
        if not 1 <= taps <= depth:
            raise BackboneError(f"{name} has {depth} blocks, but the last {taps} were asked for; set model.taps")
        return tuple(range(depth - taps + 1, depth + 1))
    if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0 or not 1 <= taps[-1] <= depth:
        wanted = f"{list(taps)!s:.100}"
        raise BackboneError(f"blocks {wanted} were asked for; {name} has blocks 1 to {depth}; give rising numbers")
    return tuple(taps)


class FrozenBackbone(nn.Module):
    """An image encoder that never learns: clips (B,T,C,H,W) -> LayerFeatures of its tapped blocks.

    It refuses training mode and gradients, and runs without autograd. A subclass implements ``tap`` for a batch of
    frames. If the frames of a clip attend to each other, it implements ``tap_clips`` instead.
    docs/adding-an-encoder.md has an example.

    Attributes (``evl.types.EncoderFacts`` has the same, and nothing else):
        spec, preprocessing: the sizes of the encoder, and how pixels become its input.
        taps: the numbers of the tapped blocks, counted from 1, shallow to deep. A first 0 is what enters block 1.
        weights_hash: identifies the weights.
        origin: where the weights came from.
        frames_per_map: how many frames make one token map: 1, more only for video encoders.
    """

    def __init__(self, spec: BackboneSpec, preprocessing: Preprocessing, taps: Taps, *, frames_per_map: int = 1):
        super().__init__()
        self.taps = tapped_blocks(taps, spec.depth, spec.name)
        self.frames_per_map = frames_per_map
        self.spec = spec
        self.preprocessing = preprocessing
        self.frames_at_once: int | None = None  # None: computed from the memory that they need
        self.compiled = False
        self._hash: str | None = None
        self.origin: WeightsOrigin | None = None
        self.__dict__["_narrow"] = None  # not a submodule: no state_dict has it, and it does not move to a device
        self.register_load_state_dict_post_hook(_forget_hash)

    def forward(self, clips: Tensor) -> list[LayerFeatures]:
        """Returns the features of the tapped blocks, shallow to deep, without gradients.

        Each has tokens (B,T,L,D), query and key (B,T,L,N,K), in the dtype of the weights. What enters block 1 has no
        attention, so its query and key have no heads: (B,T,L,0,K). Under ``torch.autocast`` the encoder runs in
        autocast's dtype, on a copy of the weights that is made once. It processes ``frames_at_once`` frames at a time.
        Raises ValueError for clips of another shape or type.
        """
        return self._features(clips)

    def token_maps(self, clips: Tensor) -> tuple[dict[int, Tensor], list[LayerFeatures]]:
        """Returns (token maps by block number, the features that ``forward`` returns).

        There is a token map (B,T,L,D) for each tapped block, and for the block before each (0: the input of block 1).
        """
        maps: dict[int, Tensor] = {}
        features = self._features(clips, maps)
        maps |= {block: one.tokens for block, one in zip(self.taps, features, strict=True)}
        return dict(sorted(maps.items())), features

    def _features(self, clips: Tensor, before: dict[int, Tensor] | None = None) -> list[LayerFeatures]:
        if clips.ndim != 5 or clips.shape[2] != 3 or not clips.is_floating_point():
            raise ValueError(f"clips of shape {tuple(clips.shape)} and {clips.dtype}; expected floats (B,T,3,H,W)")
        b, t, _, *size = clips.shape
        if not b * t:
            raise ValueError(f"clips of shape {tuple(clips.shape)}: they have no frames")
        if tuple(size) != self.spec.image_size:
            raise ValueError(f"frames of {size[0]}×{size[1]} pixels; {self.spec.name} takes {self.spec.image_size}")
        if t % self.frames_per_map:
            raise ValueError(f"clips of {t} frames; {self.spec.name} takes multiples of {self.frames_per_map}")
        device = clips.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            backbone = self.in_type(torch.get_autocast_dtype(device))
        else:
            backbone = self
        reads_0 = self.taps[0] == 0
        if reads_0 and before is None:
            before = {}
        with without_gradients(), without_autocast(clips.device):
            features = backbone.tap_clips(clips, before)
            if reads_0 and 0 not in before:
                raise BackboneError(
                    f"{self.spec.name} gives no input of block 1, which tap 0 stands for: its method tap or tap_clips "
                    "must put it in before[0] (docs/adding-an-encoder.md), or model.taps must start at 1"
                )
            return [_without_attention(before[0], self.spec), *features] if reads_0 else features

    def tap_clips(self, clips: Tensor, before: dict[int, Tensor] | None = None) -> list[LayerFeatures]:
        """Clips (B,T,C,H,W) -> features with tokens (B,T',L,D), query and key (B,T',L,N,K), T' = T / frames_per_map.

        ``before`` is filled as in ``tap``, with token maps (B,T',L,D).
        """
        b, t = clips.shape[:2]
        features = self.tap_in_parts(clips.flatten(0, 1), before)
        for block in before or ():
            before[block] = before[block].unflatten(0, (b, t))
        return [LayerFeatures(*(part.unflatten(0, (b, t)) for part in one)) for one in features]

    def resize(self, image_size: int | tuple[int, int] | None, patch_size: int | None = None) -> None:
        """Changes the encoder to take images of another size (a side, or (H, W)), in place.

        Raises BackboneError if it cannot, as here: a subclass that can overrides this method.
        """
        raise BackboneError(f"{self.spec.name} takes images of {self.spec.image_size} and no other size")

    def tap_in_parts(self, frames: Tensor, before: dict[int, Tensor] | None = None) -> list[LayerFeatures]:
        """Returns ``tap(frames, before)``, computed from at most ``frames_at_once`` frames at a time."""
        frames = frames.to(next(self.parameters()).dtype)
        if torch.compiler.is_exporting():  # parts would fix the number of clips in the exported program
            return self.tap(frames, before)
        size = self.frames_at_once or self._fitting_frames(frames)
        if len(frames) <= size:
            return self.tap(frames, before)
        outputs: list[Tensor] = []
        for start in range(0, len(frames), size):
            inputs = None if before is None else {}
            part = [x for one in self.tap(frames[start : start + size], inputs) for x in one]
            part += inputs.values() if inputs else ()
            if not outputs:  # for all frames, with the order of memory of the first part
                outputs = [x.new_empty_strided((len(frames), *x.shape[1:]), x.stride()) for x in part]
            for output, x in zip(outputs, part, strict=True):
                output[start : start + size] = x
            del part, x
        num_blocks = (len(outputs) - len(inputs or ())) // 3
        features = [LayerFeatures(*outputs[i : i + 3]) for i in range(0, 3 * num_blocks, 3)]
        if before is not None:
            before |= zip(inputs, outputs[3 * num_blocks :], strict=True)
        return features

    def _fitting_frames(self, frames: Tensor) -> int:
        """Returns how many frames to process at a time, by the size of the widest activation, the MLP's (F,L,4·D).

        A CPU is fastest while the activation fits in its last cache (docs/performance.md). A GPU gets 1 GiB.
        """
        budget = 12 << 20 if frames.device.type == "cpu" else 1 << 30
        return max(1, budget // (self.spec.num_tokens * 4 * self.spec.width * frames.element_size()))

    def in_type(self, dtype: torch.dtype) -> FrozenBackbone:
        """Returns this backbone with weights in ``dtype``: itself or a copy, which is kept until the weights change."""
        if next(self.parameters()).dtype == dtype:
            return self
        made_of = (dtype, [(p.data_ptr(), None if p.is_inference() else p._version) for p in self.parameters()])
        if self._narrow is None or self._narrow[0] != made_of:
            self.__dict__["_narrow"] = None
            with torch.inference_mode(False):
                narrow = copy.deepcopy(self).to(dtype)
            if self.compiled:  # a copy is not compiled
                narrow.compile()
            self.__dict__["_narrow"] = (made_of, narrow)
        narrow = self._narrow[1]
        narrow.frames_at_once = self.frames_at_once
        return narrow

    def __getstate__(self) -> dict:
        """Returns the state for copying and pickling, without the narrow copy."""
        return {**super().__getstate__(), "_narrow": None}

    def compile(self) -> None:
        """Lets torch compile parts of the encoder, in place, when it first runs. A subclass chooses the parts."""
        self.compiled = True
        self.__dict__["_narrow"] = None

    def _apply(self, fn, recurse=True):
        self.__dict__["_narrow"] = None  # not a submodule, so it would keep the old dtype and device
        return super()._apply(fn, recurse)

    def tap(self, frames: Tensor, before: dict[int, Tensor] | None = None) -> list[LayerFeatures]:
        """Frames (F,C,H,W) -> features with tokens (F,L,D), query and key (F,L,N,K).

        There are none of tap 0. If ``before`` is given, ``tap`` fills it with the input (F,L,D) of each tapped block
        that follows an untapped one. Its keys are the numbers of the untapped blocks; 0 stands for the input of block
        1, which is also filled in if 0 is in ``taps``.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method tap(frames), or tap_clips(clips)")

    @property
    def facts(self) -> EncoderFacts:
        """Returns the facts that describe this encoder, without its weights."""
        facts = self.spec, self.preprocessing, self.taps, self.weights_hash, self.origin
        return EncoderFacts(*facts, frames_per_map=self.frames_per_map)

    @property
    def weights_hash(self) -> str:
        """Returns ``hash_weights`` of the weights as read, before positions are resampled for another image size.

        It is empty for tensors on the meta device, which have only shapes.
        """
        if any(parameter.is_meta for parameter in self.parameters()):
            return ""
        if self._hash is None:
            self._hash = hash_weights(self.state_dict())
        return self._hash

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Stays in evaluation mode, also when the model around it is set to training mode."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> FrozenBackbone:
        if requires_grad:
            raise BackboneError(f"{self.spec.name} is frozen: its weights take no gradients")
        return super().requires_grad_(False)


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of the names, shapes and bytes of all tensors, in float32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _without_attention(tokens: Tensor, spec: BackboneSpec) -> LayerFeatures:
    """Features of what enters block 1: tokens (B,T,L,D), and query and key without heads."""
    nothing = tokens.new_empty(*tokens.shape[:3], 0, spec.head_width)
    return LayerFeatures(tokens, nothing, nothing)


def _forget_hash(backbone: FrozenBackbone, incompatible_keys) -> None:
    backbone._hash = None
    backbone.__dict__["_narrow"] = None
