"""Where the weights of a timm name are: on this machine, or at an address.

What lies in a cache is taken without asking the network, so that a machine without one does not wait.
"""

from __future__ import annotations

import os
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from evl.errors import BackboneError, MissingWeightsError


class WeightsSource(NamedTuple):
    """One file that holds a name's weights: ``address`` to fetch it from, ``where``: "timm/vit_tiny…" or the address,
    ``repository`` on the hub or None, ``file`` its name there, ``revision`` or None."""

    address: str
    where: str
    repository: str | None
    file: str
    revision: str | None = None

    def on_disk(self) -> Path | None:
        """The file in the hub's or torch's cache, if it is there."""
        if self.repository is None:
            path = Path(torch.hub.get_dir()) / "checkpoints" / self.file
            return path if path.is_file() else None
        found = huggingface_hub.try_to_load_from_cache(
            self.repository, self.file, cache_dir=constants.HF_HUB_CACHE, revision=self.revision
        )
        return Path(found) if isinstance(found, str) and Path(found).is_file() else None

    def download(self) -> Path:
        """Into the same cache; raises whatever the network raises."""
        if self.repository is not None:
            return Path(
                huggingface_hub.hf_hub_download(
                    self.repository, self.file, revision=self.revision, cache_dir=constants.HF_HUB_CACHE
                )
            )
        path = Path(torch.hub.get_dir()) / "checkpoints" / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(self.address, str(path), progress=False)
        return path


_SAFE = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}


def sources(name: str) -> list[WeightsSource]:
    """Where timm would look for the weights of ``name``, in its order; none if it has no weights."""
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        return []
    if cfg.hf_hub_id:
        repository, _, revision = cfg.hf_hub_id.partition("@")
        file = cfg.hf_hub_filename or "pytorch_model.bin"
        safe = _SAFE.get(file, file.removesuffix(".bin") + ".safetensors" if file.endswith(".bin") else None)
        files = [safe, file] if safe else [file]
        return [
            WeightsSource(
                huggingface_hub.hf_hub_url(repository, file, revision=revision or None),
                cfg.hf_hub_id,
                repository,
                file,
                revision or None,
            )
            for file in files
        ]
    url, file = cfg.url if isinstance(cfg.url, list | tuple) else (cfg.url, cfg.url.split("?")[0].rsplit("/", 1)[-1])
    return [WeightsSource(url, url, None, file)]


def weights_on_disk(name: str) -> Path | None:
    """The file with the weights of a timm name, if this machine has it."""
    return next((path for source in sources(name) if (path := source.on_disk()) is not None), None)


def fetch(name: str) -> tuple[Path, str]:
    """The weights file of a timm name and where it is from: out of a cache, or downloaded into it.

    Raises BackboneError, which names the file to fetch and where to put it.
    """
    found = sources(name)
    if not found:
        raise BackboneError(
            f"timm has no weights for {name}; set backbone.weights=FILE, or backbone.pretrained=false for random ones"
        )
    for source in found:
        if (path := source.on_disk()) is not None:
            return path, source.where
    first = found[0]
    if constants.HF_HUB_OFFLINE:
        raise MissingWeightsError(_what_to_fetch(name, first, "HF_HUB_OFFLINE is set, so nothing was asked for"))
    if (reason := _no_way_to(first.address)) is not None:
        raise MissingWeightsError(_what_to_fetch(name, first, reason))
    for source in found:
        try:
            return source.download(), source.where
        except Exception as error:  # hub, network, and disk errors come in a dozen types
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue  # the repository is there, this file is not
            cause = error.__cause__ or error
            reason = ": ".join([type(cause).__name__, *str(cause).strip().splitlines()[:1]])
            raise MissingWeightsError(_what_to_fetch(name, first, reason)) from error
    raise MissingWeightsError(_what_to_fetch(name, first, "the repository has no such file"))


def _no_way_to(address: str) -> str | None:
    """Why a host cannot be reached, where that is certain at once: the hub's client tries for half a minute."""
    if urllib.request.getproxies():
        return None
    host = urllib.parse.urlsplit(address).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        return f"{host} cannot be found: {error.strerror or error}"
    return None


def _what_to_fetch(name: str, source: WeightsSource, reason: str) -> str:
    return f"the weights of {name} are not on this machine and could not be fetched ({reason}). {how_to_get(source)}"


def how_to_get(source: WeightsSource) -> str:
    """Two ways to a file, for a machine without a network."""
    if source.repository is None:
        cached = os.path.join(torch.hub.get_dir(), "checkpoints", source.file)
        second = f"or put it at {cached}"
    else:
        revision = f" --revision {source.revision}" if source.revision else ""
        second = (
            f"or where there is a network run 'hf download {source.repository} {source.file}{revision}', which puts it "
            f"into the hub's cache (here {constants.HF_HUB_CACHE})"
        )
    return f"Fetch {source.address}, put it anywhere, and add --set backbone.weights=PATH; {second}"
