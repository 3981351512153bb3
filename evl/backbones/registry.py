"""Names → backbones: timm's, the embedded one, and OpenAI's archives."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import cache

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from evl.backbones.base import FrozenBackbone, Taps, hash_weights
from evl.backbones.openai_clip import comes_from_openai, load_openai_clip
from evl.backbones.positions import fit_to_size
from evl.backbones.refusals import refuse_by_name, refuse_unsupported
from evl.backbones.timm_vit import TimmBackbone, preprocessing_of, random_weights_
from evl.backbones.weights import read_weights
from evl.config import BackboneConfig
from evl.errors import BackboneError, nearest
from evl.types import Preprocessing

EMBEDDED = "evl_vit_tiny"
OPENAI = "openai_clip"


def create_backbone(config: BackboneConfig | str, taps: Taps, *, trust_origin: bool = False) -> FrozenBackbone:
    """The frozen backbone a config names, in float32 on the CPU, tapped at some of its blocks.

    ``taps``: 4 or ``"last 4"``, ``"all"``, or rising block numbers counted from 1, such as [3, 6, 9, 12].
    Raises BackboneError for an unknown name (with the nearest known), an architecture that cannot work, or weights
    that are missing, do not fit, or were made for another activation. ``trust_origin``: take a file in OpenAI's layout
    for OpenAI's, as where a known hash will tell.
    """
    if isinstance(config, str):
        config = BackboneConfig(name=config)
    backbone = _create(config, taps, trust_origin)
    if not any(parameter.is_meta for parameter in backbone.parameters()):
        backbone.weights_hash  # noqa: B018  (now, while the weights are as they were read: a model may be cast later)
        if not all(parameter.isfinite().all() for parameter in backbone.parameters()):
            raise BackboneError(f"the weights of {config.weights or config.name} are not all finite numbers")
    return backbone


def _create(config: BackboneConfig, taps: Taps, trust_origin: bool) -> FrozenBackbone:
    if config.patch_size is not None and "flexivit" not in config.name:
        raise BackboneError(
            f"{config.name} has patches of one size; leave backbone.patch_size unset, or see 'evl backbones flexivit'"
        )
    if config.name == OPENAI:
        if config.weights is None:
            raise BackboneError("openai_clip needs its archive: set backbone.weights=ViT-B-16.pt")
        if config.image_size is not None:
            raise BackboneError("openai_clip takes its size from the archive; leave backbone.image_size unset")
        return load_openai_clip(config.weights, taps, trust_origin=trust_origin)
    if config.name == EMBEDDED:
        return _embedded(config, taps)
    _refuse_unknown(config.name)
    refuse_by_name(config.name)
    if config.weights is None and config.pretrained:
        refuse_wrong_activation(config.name)
    vit = _create_timm(config)
    native = None
    if config.image_size is not None or config.patch_size is not None:
        # named by the weights as they were read: interpolated positions differ in the last bit between machines
        native = hash_weights({f"vit.{name}": tensor for name, tensor in vit.state_dict().items()})
        fit_to_size(vit, config.name, config.image_size, config.patch_size)
    preprocessing = preprocessing_of(vit.pretrained_cfg, vit.patch_embed.img_size)
    backbone = TimmBackbone(vit, config.name, preprocessing, taps)
    backbone._hash = native
    return backbone


def _embedded(config: BackboneConfig, taps: Taps) -> TimmBackbone:
    """A small untrained ViT with weights from a fixed seed: for first steps and tests, not for good scores."""
    if config.weights is not None:
        raise BackboneError(f"{EMBEDDED} has weights of its own; leave backbone.weights unset")
    size = config.image_size or 64
    height, width = (size, size) if isinstance(size, int) else size
    if height % 8 or width % 8:
        raise BackboneError(f"{EMBEDDED} takes sizes that are multiples of 8, not {height}×{width}")
    vit = VisionTransformer(img_size=(height, width), patch_size=8, embed_dim=128, depth=4, num_heads=2, num_classes=0)
    random_weights_(vit, seed=0)
    preprocessing = Preprocessing((height, width), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear", True)
    return TimmBackbone(vit, EMBEDDED, preprocessing, taps)


def _create_timm(config: BackboneConfig) -> nn.Module:
    overlay = None
    with torch.device("meta"):  # refuse before anything is read or downloaded
        shape = timm.create_model(config.name, pretrained=False, num_classes=0)
    refuse_unsupported(shape, config.name)
    if config.weights is not None:
        state, is_torchscript = read_weights(config.weights)
        if comes_from_openai(state, is_torchscript):
            if "clip_quickgelu" not in config.name:
                near = config.name.split(".")[0].replace("_clip_", "_clip_quickgelu_")
                raise BackboneError(
                    f"{config.weights} is an OpenAI archive, trained with QuickGELU, but {config.name} uses GELU: "
                    f"features would be wrong without any error. Use {near}, or {OPENAI}"
                )
            state = {name: tensor.float() for name, tensor in state.items()}
        _refuse_other_patches(state, tuple(shape.patch_embed.patch_size), config)
        # only the image tower: timm's converters take these names
        overlay = {"state_dict": {k: v for k, v in state.items() if not k.startswith(("transformer.", "token_"))}}
    from_weights = config.pretrained or config.weights is not None
    try:
        with _loading_noted() as misfits:
            vit = timm.create_model(config.name, pretrained=from_weights, pretrained_cfg_overlay=overlay, num_classes=0)
    except Exception as error:  # hub, network, file and shape errors come in a dozen types
        raise BackboneError(_why_not_loaded(config, error)) from error
    if misfits:
        source = config.weights or "the downloaded weights"
        more = f" and {len(misfits) - 6} more" if len(misfits) > 6 else ""
        raise BackboneError(f"{source} does not fit {config.name}: {', '.join(misfits[:6])}{more}")
    if not from_weights:
        random_weights_(vit, seed=0)
    return vit.float()


def _refuse_other_patches(state: dict, patch_size: tuple[int, int], config: BackboneConfig) -> None:
    """timm resamples patch kernels of another size without a word; only FlexiViT is made for that."""
    names = ("patch_embed.proj.weight", "visual.conv1.weight", "embeddings.patch_embedding.weight")
    for name, tensor in state.items():
        is_other = name.endswith(names) and tensor.ndim == 4 and tuple(tensor.shape[2:]) != patch_size
        if is_other and "flexivit" not in config.name:
            height, width = tensor.shape[2:]
            raise BackboneError(
                f"{config.weights} has patches of {height}×{width} pixels, but {config.name} takes "
                f"{patch_size[0]}×{patch_size[1]}; give the name these weights belong to"
            )


@contextmanager
def _loading_noted():
    """Collects keys that did not match while timm loads weights into a vision transformer.

    timm loads without ``strict`` whenever it drops the classifier, so a partial match would pass in silence. Keys
    behind the last block (final norm, pooling, head) are not read and may be missing.
    """
    misfits: list[str] = []
    behind = ("norm.", "fc_norm.", "head", "attn_pool.")
    read = ("blocks.", "patch_embed.", "pos_embed", "cls_token", "reg_token", "dist_token", "norm_pre.", "rope.")
    logger = logging.getLogger("timm.models._builder")
    level = logger.level

    def noting(self, state, *args, **kwargs):
        result = nn.Module.load_state_dict(self, state, *args, **kwargs)
        misfits.extend(f"missing {key}" for key in result.missing_keys if not key.startswith(behind))
        misfits.extend(f"unexpected {key}" for key in result.unexpected_keys if key.startswith(read))
        return result

    try:
        logger.setLevel(logging.ERROR)  # it would list every key; ours is one sentence
        for cls in (VisionTransformer, Eva):
            cls.load_state_dict = noting
        yield misfits
    finally:
        logger.setLevel(level)
        for cls in (VisionTransformer, Eva):
            del cls.load_state_dict


def _why_not_loaded(config: BackboneConfig, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).split("\n")
    if config.weights is not None:
        return f"{config.weights} does not fit {config.name}: {'; '.join(line.strip() for line in reason[:4])}"
    cfg = timm.get_pretrained_cfg(config.name)
    source = cfg.hf_hub_id or cfg.url if cfg is not None else None
    if not config.pretrained or source is None:
        return f"{config.name} could not be made: {reason[0]}"
    return (
        f"the weights of {config.name} could not be fetched from {source} ({type(error).__name__}: {reason[0]}). "
        f"Without a network, fetch them elsewhere and set backbone.weights=FILE"
    )


def _refuse_unknown(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = nearest(architecture, [EMBEDDED, OPENAI, *architectures()])
        raise BackboneError(f"no backbone named {name!r}{near}; 'evl backbones WORD' lists what there is")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        near = nearest(tag, tags)
        raise BackboneError(f"{architecture} has no weights named {tag!r}{near}")


# trained with QuickGELU as open_clip's table (3.3) says, but timm (1.0.31) does not: found by comparing the two
_QUICKGELU_WITHOUT_A_NAME = {"vit_base_patch16_clip_224.dfn2b"}


def refuse_wrong_activation(name: str) -> None:
    """timm lists CLIP weights trained with QuickGELU under a GELU architecture too; there they give wrong features."""
    architecture, _, tag = name.partition(".")
    if "quickgelu" in architecture:
        return
    twin = architecture.replace("_clip_", "_clip_quickgelu_")
    if not tag and (default := timm.get_pretrained_cfg(architecture)) is not None:
        tag = default.tag or ""  # what timm would take
    if f"{architecture}.{tag}" in _QUICKGELU_WITHOUT_A_NAME:
        raise BackboneError(
            f"the weights {tag!r} were trained with QuickGELU, but {architecture} uses GELU: features would be wrong "
            f"without any error, and timm has no name for both. Fetch model.safetensors of timm/{architecture}.{tag}, "
            f"and use --backbone {twin} with backbone.weights=FILE"
        )
    if tag and twin != architecture and f"{twin}.{tag}" in timm.list_pretrained(f"{twin}.*"):
        raise BackboneError(
            f"the weights {tag!r} were trained with QuickGELU, but {architecture} uses GELU: features would be wrong "
            f"without any error. Use {twin}.{tag}"
        )


@cache
def architectures() -> tuple[str, ...]:
    """timm's names that may work here: without those that their module already rules out."""
    modules = ("vision_transformer", "eva", "deit")
    return tuple(name for module in modules for name in timm.list_models(module=module))
