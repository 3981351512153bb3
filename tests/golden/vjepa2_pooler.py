"""Makes vjepa2_pooler_*.safetensors beside this file by transformers' own V-JEPA 2 pooler, on random weights.

    pip install transformers  &&  python tests/golden/vjepa2_pooler.py

Numbers are computed in double precision and stored in float32. transformers is needed for nothing else.
"""

from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2AttentivePooler


def make(num_blocks: int) -> None:
    torch.manual_seed(num_blocks)
    config = transformers.VJEPA2Config(
        hidden_size=24, num_attention_heads=3, num_pooler_layers=num_blocks - 1, layer_norm_eps=1e-5,
        attn_implementation="eager",
    )  # fmt: skip
    pooler = VJEPA2AttentivePooler(config)
    for name, parameter in pooler.named_parameters():  # norms and biases too
        is_scale = "layer_norm" in name and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=float(is_scale), std=0.2)
    pooler.double()
    tokens = torch.randn(3, 11, 24).double().requires_grad_()
    direction = torch.randn(3, 24).double()
    output = pooler(tokens)
    (output * direction).sum().backward()
    tensors = {"tokens": tokens, "output": output, "grad_output": direction, "grad_tokens": tokens.grad}
    for name, parameter in pooler.named_parameters():
        tensors[f"param.{name}"], tensors[f"grad.{name}"] = parameter, parameter.grad
    save_file(
        {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()},
        Path(__file__).with_name(f"vjepa2_pooler_{num_blocks}.safetensors"),
        metadata={"num_heads": "3", "transformers": transformers.__version__},
    )


if __name__ == "__main__":
    make(1)
    make(4)
