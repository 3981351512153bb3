"""Which card, which versions, and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator

import torch
from settings import Row, Settings

PACKAGES = {  # name to import: distribution
    "torch": "torch", "torchvision": "torchvision", "triton": "triton", "timm": "timm", "numpy": "numpy",
    "safetensors": "safetensors", "huggingface_hub": "huggingface_hub", "pydantic": "pydantic", "av": "av",
    "pyarrow": "pyarrow", "rich": "rich", "typer": "typer", "yaml": "pyyaml", "PIL": "pillow",
    "matplotlib": "matplotlib", "tensorboard": "tensorboard",
}  # fmt: skip
NOT_NEEDED = {"triton"}  # by torch.compile on CUDA only


def run(settings: Settings) -> Iterator[Row]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield {"what": "system", "value": f"{platform.platform()}, Python {platform.python_version()}"}
    yield {"what": "cores and memory", "value": f"{cores} cores, {memory / 2**30:.0f} GiB"}
    yield {"what": "free disk", "value": f"{shutil.disk_usage(settings.work).free / 1e9:.0f} GB"}
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None and name not in NOT_NEEDED]
    there = [f"{name} {importlib.metadata.version(name)}" for key, name in PACKAGES.items()
             if importlib.util.find_spec(key) is not None]  # fmt: skip
    yield {"what": "packages", "value": ", ".join(there)}
    yield {"what": "missing packages", "value": ", ".join(missing) or "none", "ok": not missing}
    yield {"what": "torch's CUDA", "value": f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"}
    if not settings.is_cuda:
        yield {"what": "device", "value": f"{settings.device}: no CUDA", "ok": settings.dry}
        return
    card = torch.cuda.get_device_properties(settings.device)
    yield {
        "what": "device",
        "value": f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} multiprocessors, "
        f"capability {card.major}.{card.minor}",
    }
    if shutil.which("nvidia-smi"):
        asked = "driver_version,clocks.sm,clocks.max.sm,power.limit,temperature.gpu,utilization.gpu,memory.used"
        done = subprocess.run(["nvidia-smi", f"--query-gpu={asked}", "--format=csv"], capture_output=True, text=True)
        yield {"what": "nvidia-smi", "value": " / ".join(done.stdout.split("\n")).strip(" /")}
    one = torch.randn(64, 64, device=settings.device)
    yield {"what": "a product on it", "ok": bool((one @ one).isfinite().all())}
