"""What a source is: a camera, an address in the network, a pipe, a file or a folder."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from evl.errors import ConfigError, one_line
from evl.runtime.files import expand_home

PIPE = "-"
SCHEMES = ("http", "https", "rtsp", "rtsps", "udp", "tcp", "srt", "rtmp")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/", re.IGNORECASE)  # one slash, because pathlib turns two into one

Kind = Literal["camera", "network", "pipe", "growing", "file", "folder"]


@dataclass(frozen=True)
class Address:
    """``name``: what is opened. ``shown``: the same for people, without passwords."""

    kind: Kind
    name: str
    shown: str

    @property
    def scheme(self) -> str:
        """That of an address in the network, such as ``rtsp``."""
        return self.name.partition(":")[0].lower()

    @property
    def comes_back(self) -> bool:
        """Whether it is opened again after it broke."""
        return self.kind in ("camera", "network")

    @property
    def is_paced(self) -> bool:
        """Whether frames come when they happen, so that one who reads too slowly must leave some out."""
        return self.kind in ("camera", "network")


def parse_source(source: str | int | os.PathLike, *, follow: bool = False) -> Address:
    """``0`` or ``/dev/video0``, ``rtsp://…``, ``-``, a file or a folder → its address. ``follow``: files grow.

    Raises ConfigError for what is none of these.
    """
    if isinstance(source, bool) or not isinstance(source, str | int | os.PathLike):
        raise ConfigError(f"a source of type {type(source).__name__}: expected text, a path, or a camera's number")
    text = os.fspath(source) if isinstance(source, os.PathLike) else str(source)
    if text == PIPE:
        return Address("pipe", PIPE, PIPE)
    if re.fullmatch(r"\d{1,3}", text):
        text = f"/dev/video{int(text)}"
    if found := _SCHEME.match(text):
        return _network(text, found[1].lower())
    path = str(expand_home(Path(text)))
    if re.fullmatch(r"/dev/video\d+", path):
        return Address("camera", path, path)
    return Address(_kind_of(path, follow), path, text)


def _network(text: str, scheme: str) -> Address:
    if scheme not in SCHEMES:
        raise ConfigError(f"{shown_address(text)}: addresses may begin with {', '.join(SCHEMES)}")
    if not text.lower().startswith(f"{scheme}://") or not _has_host(text):
        raise ConfigError(f"{shown_address(text)}: expected {scheme}://HOST:PORT/…")
    return Address("network", text, shown_address(text))


def _has_host(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.hostname or parts.scheme == "udp") and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _kind_of(path: str, follow: bool) -> Kind:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ConfigError(f"{path}: cannot be watched ({reason.lower()}); expected a camera, address, file or folder") \
            from None  # fmt: skip
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISFIFO(mode):
        return "pipe"
    if stat.S_ISREG(mode):
        return "growing" if follow else "file"
    raise ConfigError(f"{path}: is neither a camera (/dev/video0), nor a file, folder or pipe")


def shown_address(text: str) -> str:
    """An address without user name, password and query, which may all be secret."""
    scheme, _, rest = text.partition(":")
    rest = rest.lstrip("/")
    place, query, _ = rest.partition("?")
    host, slash, path = place.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{'?…' if query else ''}"
