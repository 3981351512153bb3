"""The text tower of a CLIP-like encoder: class names → directions among its image embeddings.

open_clip builds the tower and cuts text into tokens. It is an optional extra, and needed only once: the model saves the
resulting matrix. ``read_weights`` reads the weights, so open_clip gets tensors and no files. Tokenizers and text
models of Hugging Face that bring their own Python code are refused before they are loaded.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from timm.layers.activations import QuickGELU
from torch import Tensor, nn

from evl.backbones.embedded import EMBEDDED, open_embedded_text
from evl.backbones.text.addresses import TEXT_TOWERS
from evl.backbones.text.embeddings import ImageEmbedding
from evl.backbones.timm_vit import TimmBackbone
from evl.backbones.weights.files import read_weights
from evl.config import BackboneConfig
from evl.errors import BackboneError, MissingWeightsError
from evl.runtime.import_path import is_import_path

SETTINGS = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
VOCABULARY = 49408  # tokens of CLIP's vocabulary
SAME_TOWER = 1e-2  # the allowed distance of unit embeddings of one image: with other weights it is about 1


@dataclass(frozen=True)
class SharedSpace:
    """The parts of a CLIP that zero-shot needs. Logits are ``logit_scale`` · cosine + ``logit_bias``.

    ``text`` (Y,E): a unit vector per class. ``logit_scale`` is the factor itself, not its logarithm.
    """

    embedding: ImageEmbedding
    text: Tensor
    logit_scale: Tensor
    logit_bias: Tensor


@torch.no_grad()
def open_shared_space(
    backbone: TimmBackbone, config: BackboneConfig, class_names: Sequence[str], prompts: Sequence[str]
) -> SharedSpace:
    """Returns the image projection of ``backbone``, made by ``config``, and the text embeddings of the classes.

    The vector of a class is the mean of its prompts' unit embeddings, normalized again (Radford et al. 2021, section
    3.1.4). ``{}`` in a prompt stands for the class name, with spaces for underscores. The embedded CLIP has its own
    text tower. Torch's random state is not changed. Raises BackboneError if open_clip is missing, if there is no text
    tower, or if it belongs to another image tower.
    """
    texts = [prompt.replace("{}", name.replace("_", " ").strip()) for name in class_names for prompt in prompts]
    if config.name == EMBEDDED:
        return _embedded_space(backbone, config, class_names, texts)
    open_clip = _require_open_clip()
    with torch.random.fork_rng(devices=[]):
        model, tokenize, source = _open_tower(open_clip, backbone, config)
        weight, bias = _projection(model.visual, source)
        embedding = ImageEmbedding(backbone, backbone.spec.width if weight is None else len(weight))
    if weight is not None:
        embedding.projection.weight.copy_(weight)
    if bias is not None:
        embedding.projection.bias.copy_(bias)
    _refuse_other_tower(model.visual, backbone, embedding, source)
    parts = [texts[start : start + 64] for start in range(0, len(texts), 64)]
    rows = torch.cat([model.encode_text(tokenize(part), normalize=True) for part in parts])  # (Y·prompts,E)
    text = _mean_per_class(rows, len(class_names))
    logit_bias = torch.zeros(()) if model.logit_bias is None else model.logit_bias.reshape(())
    return SharedSpace(embedding, text, model.logit_scale.exp().reshape(()), logit_bias.clone())


def _embedded_space(
    backbone: TimmBackbone, config: BackboneConfig, class_names: Sequence[str], texts: Sequence[str]
) -> SharedSpace:
    if not config.pretrained:
        raise BackboneError(f"{config.name} with random weights has no text tower; leave backbone.pretrained unset")
    tower, projection, logit_scale = open_embedded_text(class_names)
    embedding = ImageEmbedding(backbone, len(projection))
    embedding.projection.weight.copy_(projection)
    text = _mean_per_class(tower(tower.numbers(texts)), len(class_names))
    return SharedSpace(embedding, text, logit_scale, torch.zeros(()))


def _mean_per_class(rows: Tensor, num_classes: int) -> Tensor:
    """Unit vectors of all prompts (Y·prompts,E) -> of the classes (Y,E)."""
    return F.normalize(rows.unflatten(0, (num_classes, -1)).mean(1), dim=-1)


def require_text_tower(config: BackboneConfig) -> None:
    """Raises BackboneError if open_clip is missing, or no text tower is known for the backbone. Downloads nothing."""
    if config.name == EMBEDDED:
        return
    if is_import_path(config.name):
        raise BackboneError(f"evl knows no text tower of {config.name}, so zero-shot is not possible with it")
    _require_open_clip()
    if config.weights is None and timm.is_model(config.name.partition(".")[0]):
        _repository(config)


def whole_clip_files(config: BackboneConfig) -> list[str]:
    """Returns the addresses of the files with both towers of a timm name, for users who must fetch them by hand."""
    return [f"https://huggingface.co/{_repository(config)}/resolve/main/{file}" for file in (WEIGHTS[0], SETTINGS)]


def _require_open_clip():
    try:
        import open_clip
    except ImportError:
        raise BackboneError(
            "zero-shot needs a text tower, which open_clip builds, and open_clip is not installed: "
            'pip install "evl[clip]"'
        ) from None
    return open_clip


def _open_tower(open_clip, backbone: TimmBackbone, config: BackboneConfig):
    """Returns (open_clip's model in evaluation mode and float32, its tokenizer, its origin)."""
    if config.weights is not None:
        path, source = Path(config.weights), config.weights
        settings = path.parent / SETTINGS
        settings = settings if settings.is_file() else None
    else:
        source = _repository(config)
        settings, path = _fetch(source, config.name)
    state = {key.removeprefix("module."): value for key, value in read_weights(path)[0].items()}
    if not any(key.endswith("token_embedding.weight") or key.startswith("text.") for key in state):
        raise BackboneError(f"{source} holds an image tower but no text tower; zero-shot needs both towers of a CLIP")
    try:
        if settings is not None:
            chosen = json.loads(settings.read_text(encoding="utf-8"))
            chosen = chosen.get("model_cfg", chosen)
        else:
            chosen = _settings_from_sizes(state, backbone, source)
        _refuse_code(chosen["text_cfg"], path.parent, source)
        model = _build(open_clip, chosen, state, backbone)
        return model, _tokenizer(open_clip, chosen["text_cfg"], path.parent), source
    except BackboneError:
        raise
    except ImportError as error:
        raise BackboneError(f'the text of {source} needs another package ({error}): pip install "evl[clip]"') from None
    except Exception as error:  # open_clip, its tokenizers and the hub raise many types of errors
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BackboneError(f"the text tower of {source} could not be built: {reason[:400]}") from error


def _repository(config: BackboneConfig) -> str:
    """Returns the repository on the hub with both towers of a timm name. Raises BackboneError if there is none."""
    known = timm.get_pretrained_cfg(config.name) if timm.is_model(config.name.partition(".")[0]) else None
    if known is not None and config.pretrained:
        plain = f"{known.architecture}.{known.tag}".replace("_clip_quickgelu_", "_clip_")
        if plain in TEXT_TOWERS:
            return TEXT_TOWERS[plain]
        if "_clip_" in plain and "_ft_" not in plain and known.hf_hub_id:
            return known.hf_hub_id
    raise BackboneError(
        f"{config.name} has no text tower: it was not trained with text, or its text tower is not published for "
        "open_clip; zero-shot needs a CLIP-like backbone: try 'evl backbones clip' or 'evl backbones siglip'"
    )


def _fetch(repository: str, name: str) -> tuple[Path, Path]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        settings = hf_hub_download(repository, SETTINGS)
        try:
            weights = hf_hub_download(repository, WEIGHTS[0])
        except EntryNotFoundError:  # also raised if the file is not in the cache and there is no network
            weights = hf_hub_download(repository, WEIGHTS[1])
    except Exception as error:  # the network, the hub and the disk raise a dozen types of errors
        reason = str(error).strip().split("\n")[0]
        raise MissingWeightsError(
            f"the text tower of {name} could not be fetched from {repository} ({type(error).__name__}: {reason}). "
            f"Without a network, fetch {SETTINGS} and {WEIGHTS[0]} of it on another machine, put them into one folder, "
            f"and set backbone.weights=FOLDER/{WEIGHTS[0]}"
        ) from None
    return Path(settings), Path(weights)


def _settings_from_sizes(state: Mapping[str, Tensor], backbone: TimmBackbone, source: str) -> dict:
    """Returns open_clip's settings of a plain CLIP, such as OpenAI's, with sizes from tensors and heads 64 wide.

    All models that open_clip publishes with these names and CLIP's own vocabulary have text heads 64 wide. Its CLIPA
    and multilingual towers differ, but they have another vocabulary. Raises BackboneError for other text towers.
    """
    text = {key.removeprefix("text."): value for key, value in state.items() if not key.startswith("visual.")}
    is_plain = "visual.class_embedding" in state and "text_projection" in text
    if not is_plain or len(text["token_embedding.weight"]) != VOCABULARY:
        raise BackboneError(
            f"{source} holds a text tower that differs from that of OpenAI's CLIP: put the {SETTINGS} of its "
            "repository, which describes it, into the same folder"
        )
    positions, width = text["positional_embedding"].shape
    spec, visual_fc = backbone.spec, state["visual.transformer.resblocks.0.mlp.c_fc.weight"]
    vision = {
        "layers": spec.depth,
        "width": spec.width,
        "head_width": spec.head_width,
        "patch_size": spec.patch_size[0],
        "mlp_ratio": len(visual_fc) / spec.width,
    }
    layers = {key.split(".")[2] for key in text if key.startswith("transformer.resblocks.")}
    return {
        "embed_dim": text["text_projection"].shape[1],
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": positions,
            "vocab_size": VOCABULARY,
            "width": width,
            "heads": max(1, width // 64),
            "layers": len(layers),
            "mlp_ratio": len(text["transformer.resblocks.0.mlp.c_fc.weight"]) / width,
        },
    }


_NAME_ON_HUB = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?", re.ASCII)  # "owner/name"; some old ones have no owner
_TOKENIZER_OPTIONS = {"clean", "strip_sep_token", "language"}


def _refuse_code(text: Mapping, folder: Path, source: str) -> None:
    """Raises BackboneError for settings that could make transformers load Python code, or ask whether to run it.

    It checks the settings without transformers. It refuses names that are not those of a repository on the hub, unknown
    options for transformers, and ``auto_map``, which names classes in Python files, in any settings in ``folder``.
    """
    for key in ("hf_model_name", "hf_tokenizer_name"):
        name = text.get(key)
        if name and not (isinstance(name, str) and _NAME_ON_HUB.fullmatch(name) and not Path(name).exists()):
            raise BackboneError(
                f"the text tower of {source} is refused: its {key} is {ascii(name)[:80]}. Only a name on the hub "
                "(owner/name) that is not also a local path is accepted, because a local folder may hold code"
            )
    if others := sorted(set(text.get("tokenizer_kwargs") or {}) - _TOKENIZER_OPTIONS):
        raise BackboneError(
            f"the text tower of {source} is refused: its tokenizer_kwargs have {ascii(others)[:80]}; "
            f"only {', '.join(sorted(_TOKENIZER_OPTIONS))} are accepted, because others may load code"
        )
    if not text.get("hf_tokenizer_name"):
        return

    def refuse_auto_map(pairs: list) -> dict:
        if any(key == "auto_map" for key, _ in pairs):
            raise BackboneError(
                f"the text tower of {source} is refused: {file.name} beside it has an auto_map, which loads code "
                "(Python files); use the same model without it"
            )
        return dict(pairs)

    for file in sorted(folder.glob("*config*.json")):
        json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=refuse_auto_map)


def _refuse_code_on_hub(name: str) -> None:
    """Raises BackboneError for a text model on the hub with Python code, which transformers would ask to run."""
    from transformers import AutoConfig

    try:
        needed = getattr(AutoConfig.from_pretrained(name, trust_remote_code=False), "auto_map", None)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        needed = True
    if needed:
        raise BackboneError(f"the text model {name} is refused: it loads code (Python files) of its own")


def _build(open_clip, settings: dict, state: dict[str, Tensor], backbone: TimmBackbone) -> nn.Module:
    """Returns open_clip's model from settings and tensors. Raises RuntimeError if keys or shapes do not fit."""
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed

    settings = copy.deepcopy(settings)
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    if "multimodal_cfg" in settings:
        raise BackboneError("evl does not read CoCa's text towers; use a CLIP or SigLIP")
    custom = settings.pop("custom_text", False) or "hf_model_name" in text or "text.token_embedding.weight" in state
    if text.get("hf_model_name"):
        _refuse_code_on_hub(text["hf_model_name"])
    text["hf_model_pretrained"] = vision["timm_model_pretrained"] = False
    if "timm_model_name" not in vision:
        vision["image_size"] = backbone.spec.image_size
        # both towers of a CLIP have the same activation, and that of the backbone was checked
        settings["quick_gelu"] = isinstance(getattr(backbone.vit.blocks[0].mlp, "act", None), QuickGELU)
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**settings)
    state = convert_to_custom_text_state_dict(state) if custom else dict(state)
    for key in ("input_resolution", "context_length", "vocab_size", "text.transformer.embeddings.position_ids"):
        state.pop(key, None)
    for key in ("logit_scale", "logit_bias"):
        if key in state and getattr(model, key) is not None:
            state[key] = state[key].reshape(getattr(model, key).shape)
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    resize_pos_embed(state, model)
    model.load_state_dict(state)
    if "timm_model_name" in vision and tuple(model.visual.image_size) != backbone.spec.image_size:
        model.visual.set_input_size(backbone.spec.image_size)
    return model.float().eval()


def _tokenizer(open_clip, text: Mapping, folder: Path):
    """Returns a function from texts to token numbers.

    It uses CLIP's vocabulary, which comes with open_clip, or one of Hugging Face, such as SigLIP's. The latter is read
    from ``folder`` if it is there.
    """
    options = dict(context_length=text.get("context_length", 77), **(text.get("tokenizer_kwargs") or {}))
    if not text.get("hf_tokenizer_name"):
        return open_clip.SimpleTokenizer(**options)
    name = str(folder) if (folder / "tokenizer_config.json").is_file() else text["hf_tokenizer_name"]
    return open_clip.tokenizer.HFTokenizer(
        name, tokenizer_mode=text.get("tokenizer_mode"), trust_remote_code=False, **options
    )


def _projection(visual: nn.Module, source: str) -> tuple[Tensor | None, Tensor | None]:
    """Returns weight (E,D) and bias (E) of the projection after pooling; None for each that the tower lacks."""
    if hasattr(visual, "trunk"):
        linear = [m for m in (getattr(visual.trunk, "head", None), *visual.head) if isinstance(m, nn.Linear)]
        others = [m for m in visual.head if not isinstance(m, nn.Linear | nn.Dropout)]
        if len(linear) > 1 or others:
            raise BackboneError(f"{source} has more after its pooling than one linear projection; evl cannot read that")
        return (linear[0].weight, linear[0].bias) if linear else (None, None)
    return (None if visual.proj is None else visual.proj.T), None


def _refuse_other_tower(visual: nn.Module, backbone: TimmBackbone, embedding: ImageEmbedding, source: str) -> None:
    """Raises BackboneError unless open_clip's image tower and ours give the same embedding of an image.

    Equal embeddings prove layout, activation, pooling and projection, and that image and text tower belong together.
    """
    image = torch.randn(1, 3, *backbone.spec.image_size, generator=torch.Generator().manual_seed(0))
    ours = embedding(backbone(image[:, None])[-1].tokens.flatten(0, 1))
    theirs = F.normalize(visual(image), dim=-1)
    if ours.shape != theirs.shape or not (distance := (ours - theirs).norm().item()) <= SAME_TOWER:
        found = f"{distance:.2g} apart" if ours.shape == theirs.shape else f"of {ours.shape[1]} and {theirs.shape[1]}"
        raise BackboneError(
            f"the text tower of {source} belongs to another image tower than {backbone.spec.name}: their embeddings of "
            f"one image are {found}"
        )
