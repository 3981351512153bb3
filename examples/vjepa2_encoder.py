"""V-JEPA 2 of transformers as the frozen encoder: pip install "evl[examples]"

    export PYTHONPATH=examples
    evl train --data DATA --out RUN --set backbone.name=vjepa2_encoder:VJEPA2Encoder backbone.weights=FOLDER \
        clip.num_frames=16 model.decoder=attentive model.probe_blocks=1
    evl predict RUN VIDEO

FOLDER is what transformers' ``save_pretrained`` writes, for example of facebook/vjepa2-vitl-fpc64-256. Without
``backbone.weights`` the encoder is tiny and random, always the same one: enough to try the commands.

It sees all frames of a clip at once, and makes one token map of every two. docs/adding-an-encoder.md says what evl asks
of an encoder.
"""

import torch
from torch import Tensor
from transformers import VJEPA2Config, VJEPA2Model

from evl.backbones import FrozenBackbone
from evl.errors import BackboneError
from evl.types import BackboneSpec, LayerFeatures, Preprocessing

TINY = dict(
    crop_size=64, hidden_size=96, num_attention_heads=2, num_hidden_layers=3, pred_hidden_size=48,
    pred_num_attention_heads=2, pred_num_hidden_layers=1,
)  # fmt: skip


class VJEPA2Encoder(FrozenBackbone):
    """Clips (B,T,3,H,W) -> features of its tapped blocks, with tokens (B,T/2,h·w,D); there are no prefix tokens.

    Tokens are a block's output, before the norm that V-JEPA 2 has after its last block.
    """

    def __init__(self, taps, *, weights=None, pretrained=True, image_size=None):
        config = VJEPA2Config(**TINY) if weights is None else VJEPA2Config.from_pretrained(weights)
        size = image_size or config.crop_size
        height, width = (size, size) if isinstance(size, int) else size
        if height != width:
            raise BackboneError(f"images of {height}×{width}: V-JEPA 2 takes square ones")
        config.crop_size = height  # places are rotations: weights of one size serve for another
        patch, heads = config.patch_size, config.num_attention_heads
        spec = BackboneSpec(
            name="vjepa2_encoder:VJEPA2Encoder", width=config.hidden_size, depth=config.num_hidden_layers,
            num_heads=heads, head_width=config.hidden_size // heads, grid=(height // patch, width // patch),
            num_prefix_tokens=0, image_size=(height, width), patch_size=(patch, patch),
        )  # fmt: skip
        pixels = Preprocessing((height, width), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), antialias=True)
        super().__init__(spec, pixels, taps, frames_per_map=config.tubelet_size)
        if weights is not None and pretrained:
            model = VJEPA2Model.from_pretrained(weights, config=config, dtype=torch.float32)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = VJEPA2Model(config)
        self.encoder = model.encoder  # without the predictor, which is for V-JEPA's own training

    def tap_clips(self, clips: Tensor, before: dict[int, Tensor] | None = None) -> list[LayerFeatures]:
        num_maps, found = clips.shape[1] // self.frames_per_map, []
        x = self.encoder.embeddings(clips)  # (B,S,D), S = T/2·h·w
        for number, block in enumerate(self.encoder.layer[: self.taps[-1]], 1):
            query_key = query_and_key(block, x) if number in self.taps else None
            x, _ = block(x)
            if query_key is not None:
                found.append(LayerFeatures(*(part.unflatten(1, (num_maps, -1)) for part in (x, *query_key))))
        return found


def query_and_key(block, x: Tensor) -> tuple[Tensor, Tensor]:
    """Those of a block's self-attention for its input x (B,S,D), as it uses them: turned by their place in time, row
    and column. (B,S,N,K) each, before the scale 1/√K."""
    attention, y = block.attention, block.norm1(x)
    places = attention.get_position_ids(y)
    parts = (layer(y).unflatten(-1, (attention.num_attention_heads, -1)) for layer in (attention.query, attention.key))
    turned = (attention.apply_rotary_embeddings(part.transpose(1, 2), places) for part in parts)
    return tuple(part.transpose(1, 2) for part in turned)
