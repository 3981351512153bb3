"""Writes tests/golden/layouts: tiny checkpoints as other libraries save them, and what these libraries compute.

    pip install transformers open_clip_torch
    python scripts/make_layout_goldens.py

One file a layout: ``file.*`` is the checkpoint, key for key; ``frames`` (2,3,16,16); ``tokens.i`` what block i gives;
metadata: the tiny timm architecture it belongs to (tests/backbones/tiny.py), the layout's name, config.json.
Made with transformers 5.23 and open_clip 3.3.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import open_clip
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import tests.backbones.tiny  # noqa: E402, F401

OUT = ROOT / "tests" / "golden" / "layouts"
SIZE = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, patch_size=4)
IMAGE = dict(image_size=16)
TEXT = dict(
    hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=12,
    max_position_embeddings=4, bos_token_id=0, eos_token_id=1, pad_token_id=1,
)  # fmt: skip


def shake(model) -> None:
    """Values for everything, so that each part is exercised: biases, norms and scales too."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in name and name.endswith("weight")
            is_scale = name.endswith(("gamma", "lambda1", "gamma_1", "gamma_2"))
            parameter.copy_(1 + 0.2 * noise if is_norm or is_scale else 0.15 * noise)


def tokens_of(model, pattern: str, run) -> list[torch.Tensor]:
    """What the blocks whose names match give, in order."""
    found: list[torch.Tensor] = []
    for name, module in model.named_modules():
        if re.search(pattern, name):
            module.register_forward_hook(lambda m, a, out: found.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        run(model)
    return [tokens.detach().clone() for tokens in found]


def save(name: str, state: dict, tokens: list, frames, architecture: str, layout: str, config: dict | None) -> None:
    assert len(tokens) == 2, f"{name}: {len(tokens)} blocks"
    content = {f"file.{key}": value.contiguous().clone() for key, value in state.items()}
    content |= {"frames": frames, **{f"tokens.{i}": x.contiguous() for i, x in enumerate(tokens)}}
    metadata = {"architecture": architecture, "layout": layout, "config": json.dumps(config or {})}
    save_file(content, OUT / f"{name}.safetensors", metadata=metadata)
    print(name, f"{(OUT / f'{name}.safetensors').stat().st_size / 1000:.0f} kB")


def from_transformers(name, model, architecture, layout, pattern, frames, run=None, keep_config=True) -> None:
    model.eval()
    shake(model)
    vision = getattr(model, "vision_model", model)
    run = run or (lambda m: m(pixel_values=frames))
    tokens = tokens_of(vision, pattern, lambda _: run(vision if hasattr(model, "text_model") else model))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        state = load_file(Path(folder) / "model.safetensors")
        config = json.loads((Path(folder) / "config.json").read_text())
    save(name, state, tokens, frames, architecture, layout, config if keep_config else None)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    frames = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    layer = r"(^|\.)layers?\.\d+$"
    mlp = dict(intermediate_size=64)

    clip = dict(**SIZE, **IMAGE, **mlp)
    for act, architecture in (("quick_gelu", "tiny_clip_quickgelu_16"), ("gelu", "tiny_clip_16")):
        config = hf.CLIPConfig(vision_config={**clip, "hidden_act": act}, text_config=TEXT, projection_dim=8)
        model = hf.CLIPModel(config)
        from_transformers(f"hf_clip_{act}", model, architecture, "Hugging Face CLIP", layer, frames)
    siglip = hf.SiglipConfig(vision_config=clip, text_config=TEXT)
    from_transformers("hf_siglip", hf.SiglipModel(siglip), "tiny_siglip_16", "Hugging Face SigLIP", layer, frames)
    patches = frames.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).reshape(2, 16, 48)
    free = hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**SIZE, **mlp, num_patches=16))

    def run_free(m):
        m(
            pixel_values=patches,
            pixel_attention_mask=torch.ones(2, 16, dtype=torch.long),
            spatial_shapes=torch.tensor([[4, 4], [4, 4]]),
        )

    from_transformers("hf_siglip2", free, "tiny_siglip_16", "Hugging Face SigLIP", layer, frames, run_free)
    dino = dict(**SIZE, **IMAGE, mlp_ratio=4)
    from_transformers(
        "hf_dinov2", hf.Dinov2Model(hf.Dinov2Config(**dino)), "tiny_dinov2", "Hugging Face DINOv2", layer, frames
    )
    gated = hf.Dinov2Model(hf.Dinov2Config(**dino, use_swiglu_ffn=True))
    from_transformers("hf_dinov2_gated", gated, "tiny_dinov2_gated", "Hugging Face DINOv2", layer, frames)
    registers = hf.Dinov2WithRegistersForImageClassification(hf.Dinov2WithRegistersConfig(**dino))
    from_transformers(
        "hf_dinov2_registers", registers, "tiny_reg4_dinov2", "Hugging Face DINOv2 with registers", layer, frames
    )
    three = dict(**SIZE, **IMAGE, **mlp, num_register_tokens=4)
    from_transformers(
        "hf_dinov3", hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**three)), "tiny_dinov3_qkvb", "Hugging Face DINOv3", layer,
        frames,
    )  # fmt: skip
    plain = hf.DINOv3ViTConfig(
        **{**three, "intermediate_size": 32}, use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False
    )
    from_transformers(
        "hf_dinov3_gated", hf.DINOv3ViTModel(plain), "tiny_dinov3_gated", "Hugging Face DINOv3", layer, frames
    )
    vit = hf.ViTConfig(**clip, layer_norm_eps=1e-6)
    from_transformers("hf_vit", hf.ViTForImageClassification(vit), "tiny_vit_16", "Hugging Face ViT", layer, frames)
    mae = hf.ViTMAEForPreTraining(
        hf.ViTMAEConfig(
            **clip, layer_norm_eps=1e-6, mask_ratio=0.0, decoder_hidden_size=8, decoder_intermediate_size=8,
            decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        )
    )  # fmt: skip
    in_order = torch.arange(16.0).repeat(2, 1)  # of the patches, which it would shuffle
    from_transformers(
        "hf_mae", mae, "tiny_vit_16", "Hugging Face ViT", r"^vit\..*layers?\.\d+$", frames,
        lambda m: m(pixel_values=frames, noise=in_order),
    )  # fmt: skip
    aim = hf.Aimv2VisionModel(hf.Aimv2VisionConfig(**SIZE, **IMAGE, intermediate_size=32))
    from_transformers("hf_aimv2", aim, "tiny_aimv2", "Hugging Face AIMv2", layer, frames)

    text = dict(context_length=4, vocab_size=12, width=8, heads=2, layers=1)
    for quick, architecture in ((True, "tiny_clip_quickgelu_16"), (False, "tiny_clip_16")):
        vision = dict(layers=2, width=16, head_width=8, patch_size=4, image_size=16)
        model = open_clip.CLIP(embed_dim=8, vision_cfg=vision, text_cfg=text, quick_gelu=quick).eval()
        shake(model)
        tokens = tokens_of(model, r"visual\.transformer\.resblocks\.\d+$", lambda m: m.encode_image(frames))
        state = {f"module.{key}": value for key, value in model.state_dict().items()}
        config = {"model_cfg": {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}}
        if quick:
            config["model_cfg"]["quick_gelu"] = True
        save(f"open_clip{'_quick' if quick else ''}", state, tokens, frames, architecture, "open_clip", config)
    for name in ("tiny_siglip_16", "tiny_eva02"):
        vision = dict(timm_model_name=name, timm_model_pretrained=False, timm_pool="", timm_proj="none", image_size=16)
        if name == "tiny_siglip_16":
            vision["timm_pool"] = "map"
        embed_dim = 16
        model = open_clip.CustomTextCLIP(embed_dim=embed_dim, vision_cfg=vision, text_cfg=text).eval()
        shake(model)
        tokens = tokens_of(model, r"visual\.trunk\.blocks\.\d+$", lambda m: m.encode_image(frames))
        save(f"open_clip_{name}", model.state_dict(), tokens, frames, name, "open_clip with timm's tower", None)


if __name__ == "__main__":
    main()
