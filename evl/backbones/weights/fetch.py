"""Finds the weights of a timm name on this machine, or downloads them.

Files in a cache are used without a request to the network, so a machine without a network does not wait.
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
    """A published weights file.

    ``address`` is its URL, ``where`` the hub's id ("timm/vit_tiny…") or the URL again. ``repository`` and ``revision``
    are those on the hub, or None; ``file`` is its name there.
    """

    address: str
    where: str
    repository: str | None
    file: str
    revision: str | None = None

    def on_disk(self) -> Path | None:
        """Returns the path of the file in the cache of the hub or of torch; None if it is not there."""
        if self.repository is None:
            path = Path(torch.hub.get_dir()) / "checkpoints" / self.file
            return path if path.is_file() else None
        found = huggingface_hub.try_to_load_from_cache(
            self.repository, self.file, cache_dir=constants.HF_HUB_CACHE, revision=self.revision
        )
        return Path(found) if isinstance(found, str) and Path(found).is_file() else None

    def download(self) -> Path:
        """Downloads the file into that cache and returns its path. Errors of the network are not caught."""
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
    """Returns the files that may hold timm's weights of ``name``, in timm's order; [] if it has no weights."""
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
    """Returns the cached weights file of a timm name; None if it is not on this machine."""
    return next((path for source in sources(name) if (path := source.on_disk()) is not None), None)


def fetch(name: str) -> tuple[Path, str]:
    """Returns (path, origin) of the weights file of a timm name; downloads it into a cache if it is not there.

    Raises BackboneError if there are no weights. Raises MissingWeightsError if the download fails; it names the file to
    fetch and where to put it.
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
        raise MissingWeightsError(_what_to_fetch(name, first, "HF_HUB_OFFLINE is set, so the hub was not asked"))
    if (reason := _no_way_to(first.address)) is not None:
        raise MissingWeightsError(_what_to_fetch(name, first, reason))
    for source in found:
        try:
            return source.download(), source.where
        except Exception as error:  # the hub, the network and the disk raise a dozen types of errors
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue  # the repository exists, but not this file
            cause = error.__cause__ or error
            reason = ": ".join([type(cause).__name__, *str(cause).strip().splitlines()[:1]])
            raise MissingWeightsError(_what_to_fetch(name, first, reason)) from error
    raise MissingWeightsError(_what_to_fetch(name, first, "the repository has no such file"))


def _no_way_to(address: str) -> str | None:
    """Returns why a host cannot be reached, if that is certain at once: the hub's client tries for half a minute."""
    if urllib.request.getproxies():
        return None
    host = urllib.parse.urlsplit(address).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        return f"{host} cannot be found: {error.strerror or error}"
    return None


def _what_to_fetch(name: str, source: WeightsSource, reason: str) -> str:
    if source.repository is None:
        cached = os.path.join(torch.hub.get_dir(), "checkpoints", source.file)
        second = f"or put it at {cached}"
    else:
        revision = f" --revision {source.revision}" if source.revision else ""
        second = (
            f"or run 'hf download {source.repository} {source.file}{revision}' on a machine with a network, which puts "
            f"it into the hub's cache (here {constants.HF_HUB_CACHE})"
        )
    return (
        f"the weights of {name} are not on this machine and could not be fetched ({reason}). "
        f"Fetch {source.address}, put it anywhere, and add `backbone.weights=PATH`; {second}"
    )
