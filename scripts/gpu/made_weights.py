"""A file of random weights, so that processes that load an encoder by its name get the same one."""

from __future__ import annotations

import torch
from settings import Settings


def backbone_settings(settings: Settings, name: str) -> dict[str, object]:
    """For ``RunConfig.backbone``. evl's own encoders have the same random weights everywhere."""
    if name.startswith("evl_"):
        return {"name": name, "pretrained": False}
    import timm
    from safetensors.torch import save_file

    path = settings.work / f"{name}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False, num_classes=0)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return {"name": name, "weights": str(path)}
