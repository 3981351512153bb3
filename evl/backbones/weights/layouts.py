"""Recognizes the layout of a weights file by its keys, and renames its tensors to timm's names.

A weights layout is the set of names that a file gives to its tensors. timm's own converters (``checkpoint_filter_fn``)
read OpenAI's CLIP, DINOv2 and DINOv3, EVA, Perception Encoder and AIMv2 in their authors' layouts. The tables here are
for the layouts of Hugging Face transformers, which timm does not read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from evl.errors import BackboneError


class WeightsLayout(NamedTuple):
    """A weights layout: its ``name`` for messages, and the ``prefix`` of the image tower's names in the file."""

    name: str
    prefix: str

    @property
    def is_hugging_face(self) -> bool:
        return self.name.startswith("Hugging Face")

    @property
    def has_flat_patches(self) -> bool:
        """Whether patch kernels may be matrices, in a known order: those of SigLIP 2 with free aspect (NaFlex) are."""
        return self.name == "Hugging Face SigLIP"

    @property
    def is_clip(self) -> bool:
        """Whether weights with these names may have been trained with QuickGELU or with GELU."""
        return self.name in ("OpenAI CLIP", "open_clip", "Hugging Face CLIP")


# (the last part of a key, the layout that has it); the first one found counts
_SIGNS = (
    ("embeddings.patch_embedding.weight", "Hugging Face CLIP"),
    ("embeddings.patch_embeddings.projection.weight", "Hugging Face ViT"),
    ("embeddings.patch_embeddings.weight", "Hugging Face DINOv3"),
    ("embeddings.patch_embed.weight", "Hugging Face AIMv2"),
    ("preprocessor.patchifier.proj.weight", "AIMv2"),
    ("conv1.weight", "OpenAI CLIP"),
    ("patch_embed.proj.weight", "timm"),
)


def recognize_layout(keys: Iterable[str], path, is_openai: bool = False) -> WeightsLayout:
    """Returns the layout of a file by its keys. ``is_openai``: the file is known to be OpenAI's own.

    Raises BackboneError for unknown layouts and for files with several image towers.
    """
    keys = set(keys)
    for sign, name in _SIGNS:
        prefixes = sorted({key.removesuffix(sign) for key in keys if key == sign or key.endswith(f".{sign}")})
        if name == "OpenAI CLIP":  # residual networks have a conv1 too
            prefixes = [prefix for prefix in prefixes if f"{prefix}transformer.resblocks.0.ln_1.weight" in keys]
        if len(prefixes) > 1:
            raise BackboneError(
                f"{path} holds several image encoders ({', '.join(prefix + '*' for prefix in prefixes[:4])}); "
                "give a file with only one"
            )
        if prefixes:
            of_tower = {key.removeprefix(prefixes[0]) for key in keys if key.startswith(prefixes[0])}
            return WeightsLayout(_refine(name, prefixes[0], of_tower, is_openai), prefixes[0])
    raise BackboneError(
        f"{path}: the layout of these weights is not known: {in_groups(keys)}. Known are vision transformers in the "
        "layouts of timm, OpenAI's CLIP, open_clip, Hugging Face transformers (CLIP, SigLIP, DINOv2, DINOv3, ViT, MAE, "
        "AIMv2), and the originals of DINOv2, DINOv3, EVA, Perception Encoder, AIMv2 and MAE"
    )


def _refine(name: str, prefix: str, keys: set[str], is_openai: bool) -> str:
    """Returns the layout among those that share a sign. ``keys``: of the image tower, without ``prefix``."""
    if name == "Hugging Face CLIP":
        return name if "embeddings.class_embedding" in keys else "Hugging Face SigLIP"
    if name == "Hugging Face ViT" and "encoder.layer.0.layer_scale1.lambda1" in keys:
        return "Hugging Face DINOv2" + (" with registers" if "embeddings.register_tokens" in keys else "")
    if name == "OpenAI CLIP":
        if "class_embedding" not in keys or keys & {"attn_pool.probe", "transformer.resblocks.0.ls_1.gamma"}:
            return "Perception Encoder"
        return name if is_openai else "open_clip"
    if name == "timm":
        return "open_clip with timm's tower" if prefix.endswith("visual.trunk.") else _refine_timm(keys)
    return name


def _refine_timm(keys: set[str]) -> str:
    if "storage_tokens" in keys:
        return "DINOv3"
    if keys >= {"mask_token", "blocks.0.ls1.gamma"}:
        return "DINOv2"
    if "decoder_pred.weight" in keys:
        return "MAE"
    if keys & {"blocks.0.mlp.w1.weight", "blocks.0.mlp.w12.weight", "blocks.0.attn.inner_attn_ln.weight"}:
        return "EVA"
    return "timm"


def tower_of(state: Mapping[str, Tensor], layout: WeightsLayout) -> dict[str, Tensor]:
    """Returns the tensors of the image tower, without the prefix, text towers, pretraining decoders and projections."""
    return {
        key.removeprefix(layout.prefix): value
        for key, value in state.items()
        if key.startswith(layout.prefix) and not _OTHER_PARTS.match(key.removeprefix(layout.prefix))
    }


# parts of a file that are not the image tower, if the tower has no prefix
_OTHER_PARTS = re.compile(
    r"(text|text_model|text_projection|visual_projection|logit_scale|logit_bias|transformer\.|token_embedding|ln_final"
    r"|positional_embedding$|decoder|classifier|input_resolution$|context_length$|vocab_size$|visual\.head\.|lm_head"
    r"|projectors\.|local_cls_norm|dino_head|ibot_head)"
)
_OTHER_PARTS_OF_CLIP = re.compile(r"(text|logit_scale|logit_bias)")


def for_timm(state: Mapping[str, Tensor], layout: WeightsLayout) -> dict[str, Tensor]:
    """Returns the image tower under the names that timm's converters read."""
    if layout.name in ("OpenAI CLIP", "open_clip", "Perception Encoder"):
        tower = {k.removeprefix(layout.prefix): v for k, v in state.items() if k.startswith(layout.prefix)}
        return {f"visual.{k}": v.float() for k, v in tower.items() if not _OTHER_PARTS_OF_CLIP.match(k)}
    return tower_of(state, layout)


_BLOCK = re.compile(r"(?:encoder\.|model\.)?layers?\.(\d+)\.(.+)\.(weight|bias|lambda1)$")
_IN_BLOCK = {
    **{f"attention.attention.{name}": f"attn.{name[0]}" for name in ("query", "key", "value")},
    **{f"{module}.{name}_proj": f"attn.{name}" for module in ("attention", "self_attn") for name in "qkv"},
    **dict.fromkeys(
        ("attention.output.dense", "attention.o_proj", "attention.out_proj", "self_attn.out_proj"), "attn.proj"
    ),
    **dict.fromkeys(("layer_norm1", "norm1", "layernorm_before", "rms_norm1"), "norm1"),
    **dict.fromkeys(("layer_norm2", "norm2", "layernorm_after", "rms_norm2"), "norm2"),
    **dict.fromkeys(("mlp.fc1", "intermediate.dense", "mlp.weights_in", "mlp.up_proj"), "mlp.fc1"),
    **dict.fromkeys(("mlp.fc2", "output.dense", "mlp.weights_out", "mlp.down_proj", "ffn.down_proj"), "mlp.fc2"),
    **dict.fromkeys(("ffn.gate_proj", "mlp.gate_proj"), "mlp.fc1_g"),
    "ffn.up_proj": "mlp.fc1_x",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}
_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.class_embedding": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.position_embedding.weight": "pos_embed",
    "embeddings.rms_norm.weight": "patch_embed.norm.weight",
    **{
        f"embeddings.{theirs}.{part}": f"patch_embed.proj.{part}"
        for theirs in ("patch_embedding", "patch_embeddings", "patch_embeddings.projection", "patch_embed")
        for part in ("weight", "bias")
    },
    **{
        f"{theirs}.{part}": f"{ours}.{part}"
        for theirs, ours in (
            ("pre_layrnorm", "norm_pre"),  # spelled so in transformers
            ("post_layernorm", "norm"),
            ("layernorm", "norm"),
            ("norm", "norm"),
            ("rms_norm", "norm"),
            ("head.layernorm", "attn_pool.norm"),
            ("head.attention.out_proj", "attn_pool.proj"),
            ("head.mlp.fc1", "attn_pool.mlp.fc1"),
            ("head.mlp.fc2", "attn_pool.mlp.fc2"),
        )
        for part in ("weight", "bias")
    },
    "head.probe": "attn_pool.latent",
}
_NOT_READ = re.compile(r"(embeddings\.(mask_token|position_ids)$|pooler\.|head\.(cls_token|[kv]_proj|output_proj))")


def from_hugging_face(
    tower: Mapping[str, Tensor], layout: WeightsLayout, wanted: Collection[str], patch_size: tuple[int, int]
) -> dict[str, Tensor]:
    """Renames the image tower of a Hugging Face model to timm's names; unknown names stay, and are reported later.

    ``wanted``: the names of the timm model, which show whether it joins queries, keys and values. Raises BackboneError
    for a tensor that the file holds under two names.
    """
    state = _Once()
    for key, value in tower.items():
        if _NOT_READ.match(key):
            continue
        if block := _BLOCK.match(key):
            index, part, kind = block.groups()
            ours = _IN_BLOCK.get(part)
            if part == "mlp.up_proj" and f"{key[: block.start(2)]}mlp.gate_proj.weight" in tower:
                ours = "mlp.fc1_x"
            kind = "gamma" if kind == "lambda1" else kind
            name = f"blocks.{index}.{ours}.{kind}" if ours else key
            scale = f"blocks.{index}.gamma_{name[-7]}" if kind == "gamma" else None
            state[scale if scale in wanted else name] = value
        elif key.startswith("head.attention.in_proj_"):
            kind, width = key.removeprefix("head.attention.in_proj_"), len(value) // 3
            state[f"attn_pool.q.{kind}"], state[f"attn_pool.kv.{kind}"] = value[:width], value[width:]
        else:
            state[_OUTSIDE.get(key, key)] = value
    state = dict(state)
    _reshape(state, layout, patch_size)
    _join_attention(state, wanted)
    for name in [name for name in state if ".mlp.fc1_g." in name]:
        joined, up = name.replace("fc1_g", "fc1"), name.replace("fc1_g", "fc1_x")
        if joined in wanted and up in state:
            state[joined] = torch.cat([state.pop(name), state.pop(up)])
    return state


class _Once(dict):
    """A dict whose items may be set once: of a tensor that a file holds under two names, neither is preferred."""

    def __setitem__(self, name: str, value: Tensor) -> None:
        if name in self:
            raise BackboneError(f"the file holds {name} under two names")
        super().__setitem__(name, value)


def _reshape(state: dict[str, Tensor], layout: WeightsLayout, patch_size: tuple[int, int]) -> None:
    for name in ("cls_token", "reg_token", "pos_embed"):
        if name in state and state[name].ndim < 3:
            state[name] = state[name].reshape(1, -1, state[name].shape[-1])
    kernel = state.get("patch_embed.proj.weight")
    if kernel is not None and kernel.ndim == 2 and kernel.shape[1] == 3 * patch_size[0] * patch_size[1]:
        # flattened as (height, width, channel); layouts without ``has_flat_patches`` were refused before
        state["patch_embed.proj.weight"] = kernel.reshape(-1, *patch_size, 3).permute(0, 3, 1, 2)
    if layout.name.endswith("with registers") and {"cls_token", "pos_embed"} <= state.keys():
        # timm has no position for the class token here, so the token includes it
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]


def _join_attention(state: dict[str, Tensor], wanted: Collection[str]) -> None:
    """Joins queries, keys and values into one projection if the model has one.

    Biases are joined only if all three are there, or without that of the keys if the model has none (DINOv3). A bias
    that the model lacks is dropped only if it is zero. Other biases keep their names, and are reported later.
    """
    for name in [name for name in state if name.endswith(".attn.q.weight")]:
        at = name.removesuffix("q.weight")
        if f"{at}qkv.weight" not in wanted:
            for part in "qkv":
                for kind in ("weight", "bias"):
                    if f"{at}{part}.{kind}" in state:
                        state[f"{at}{part}_proj.{kind}"] = state.pop(f"{at}{part}.{kind}")
            continue
        if all(f"{at}{part}.weight" in state for part in "qkv"):
            state[f"{at}qkv.weight"] = torch.cat([state.pop(f"{at}{part}.weight") for part in "qkv"])
        biases = {part: state[f"{at}{part}.bias"] for part in "qkv" if f"{at}{part}.bias" in state}
        if f"{at}qkv.bias" in wanted:
            fits = biases.keys() == set("qkv")
            joined = {f"{at}qkv.bias": torch.cat([biases[part] for part in "qkv"])} if fits else {}
        elif f"{at}q_bias" in wanted:
            fits = biases.keys() >= set("qv") and not ("k" in biases and biases["k"].any())
            joined = {f"{at}{part}_bias": biases[part] for part in "qv"} if fits else {}
        else:
            fits, joined = not any(bias.any() for bias in biases.values()), {}
        if fits:
            for part in biases:
                del state[f"{at}{part}.bias"]
            state.update(joined)


def in_groups(keys: Collection[str], most: int = 6) -> str:
    """Returns keys as a short text: grouped by how they begin, numbered blocks as ranges, with counts and an example.

    "blocks.3–11 (108, such as blocks.3.norm1.weight), text_model.* (148, such as …)"
    """
    blocks: dict[tuple[str, int], list[str]] = {}
    others: dict[str, list[str]] = {}
    for key in keys:
        if match := re.match(r"(.*?)(\d+)\.(.+)", key):
            blocks.setdefault((match[1], int(match[2])), []).append(match[3])
        else:
            others.setdefault(key.split(".")[0] if "." in key else key, []).append(key)
    alike: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for (head, index), tails in sorted(blocks.items()):
        alike.setdefault((head, tuple(sorted(tails))), []).append(index)
    texts = []
    for (head, tails), indices in alike.items():
        count = len(tails) * len(indices)
        if len(tails) == 1:
            texts.append(f"{head}{_ranges(indices)}.{tails[0]}" + (f" ({count})" if count > 1 else ""))
        else:
            texts.append(f"{head}{_ranges(indices)} ({count} tensors, such as {head}{indices[0]}.{tails[0]})")
    for head, names in sorted(others.items()):
        many = f"{head}.* ({len(names)}, such as {min(names)})"
        texts.append(many if len(names) > 2 else ", ".join(sorted(names)))
    more = f" and {len(texts) - most} more groups" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _ranges(indices: list[int]) -> str:
    """Returns numbers as ranges: [3, 4, 5, 9] -> "3–5,9"."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
