"""A folder of pictures → frames: what Something-Something v1 and many extracted data sets come as."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from evl.errors import VideoError
from evl.types import VideoInfo
from evl.video.decode.container import MAX_PIXELS, os_reason
from evl.video.decode.frame_series import Frames, UnclearError, frames_among

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
FRAMES_PER_SECOND = 25.0  # such folders have no rate: times are a convention
_SIDEWAYS = {5, 6, 7, 8}  # EXIF orientations that swap width and height


def frame_files(folder: str | Path) -> list[Path]:
    """The pictures of a folder that are its frames, in the order of the numbers in their names: 9.jpg before 10.jpg.

    Hidden files, whatever is no plain file, and pictures of another series are left out (``frame_series``).
    Raises VideoError for a folder that cannot be listed, or whose names do not say which pictures are the frames.
    """
    found = frames_in(folder)
    return [Path(folder) / name for name in found.series.names] if found is not None else []


def frames_in(folder: str | Path) -> Frames | None:
    """The frames of a folder, and the series of pictures beside them, by name; None where there is no picture. Raises
    VideoError as ``frame_files``."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if is_image_name(entry.name) and entry.is_file()]
    except OSError as error:
        raise VideoError(folder, os_reason(error)) from None
    try:
        return frames_among(tuple(names)) if names else None
    except UnclearError as error:
        raise VideoError(folder, str(error)) from None


def is_image_name(name: str) -> bool:
    """Whether a file's name is that of a frame: a known ending, and not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_frame_folder(path: str | Path) -> bool:
    """Whether ``path`` is a folder that directly holds at least one JPEG or PNG file."""
    try:
        with os.scandir(path) as entries:
            return any(is_image_name(entry.name) and entry.is_file() for entry in entries)
    except OSError:
        return False


def probe_folder(path: str | Path) -> VideoInfo:
    """Number of frames and size of the first one; codec ``frames``.

    Frame i is shown at i/25 s: pictures have no times of their own. Raises VideoError where there are none, or the
    first one is no picture.
    """
    files = _files(path)
    with _Picture(path, files[0]) as image:
        width, height = image.size
        if image.getexif().get(0x0112) in _SIDEWAYS:
            width, height = height, width
    times = tuple(i / FRAMES_PER_SECOND for i in range(len(files)))
    return VideoInfo(str(path), times, width, height, "frames")


def read_folder(path: str | Path, indices: Sequence[int]) -> Tensor:
    """Frames by number: uint8 (len(indices), 3, H, W), RGB, turned upright. Only the wanted files are opened.

    Indices may repeat and come in any order. A frame of another size than the first wanted one is resized to it.
    Raises VideoError, which names the picture, if one is missing or cannot be decoded.
    """
    wanted = sorted(set(indices))
    if not wanted:
        raise ValueError("no frame indices given")
    if wanted[0] < 0:
        raise ValueError(f"negative frame index {wanted[0]}")
    files = _files(path)
    if wanted[-1] >= len(files):
        lacking = next(index for index in wanted if index >= len(files))
        raise VideoError(path, f"has {len(files)} frames, but frame {lacking} was wanted")
    pictures: list[np.ndarray] = []
    for index in wanted:
        pictures.append(_decode(path, files[index], pictures[0].shape if pictures else None))
    frames = torch.from_numpy(np.stack(pictures))
    place = {index: i for i, index in enumerate(wanted)}
    return frames[[place[index] for index in indices]].permute(0, 3, 1, 2).contiguous()


def check_frames(path: str | Path, first: int = 0, count: int | None = None) -> None:
    """Decodes the pictures first … first+count−1 (by default all). Raises VideoError at the first that fails."""
    files = _files(path)
    last = len(files) if count is None else first + count
    if last > len(files):
        raise VideoError(path, f"has {len(files)} frames, but frame {last - 1} was wanted")
    for file in files[first:last]:
        _decode(path, file, None)


def _files(path: str | Path) -> list[Path]:
    files = frame_files(path)
    if not files:
        raise VideoError(path, "is a folder without JPEG or PNG frames")
    return files


def _decode(path: str | Path, file: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    """(H,W,3) uint8, brought to ``shape`` if given."""
    with _Picture(path, file) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):  # 16-bit grey: PIL would clip it to white
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert("RGB")
        if shape is not None and (image.height, image.width) != shape[:2]:
            image = image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
        return np.array(image)


class _Picture:
    """An opened picture; everything that goes wrong while it is used becomes a VideoError that names its file."""

    def __init__(self, path: str | Path, file: Path):
        self.path, self.file, self.image = path, file, None

    def __enter__(self) -> Image.Image:
        try:
            self.image = Image.open(self.file, formats=("JPEG", "PNG"))
        except Exception as error:
            raise self._problem(error) from None
        width, height = self.image.size
        if width * height > MAX_PIXELS:
            self.image.close()
            raise VideoError(self.path, f"frame {self.file.name} claims {width}×{height} pixels")
        return self.image

    def __exit__(self, kind, error, trace) -> None:
        self.image.close()
        # damaged files make PIL raise all sorts of errors, SyntaxError, ValueError and zlib.error among them
        if isinstance(error, Exception):
            raise self._problem(error) from None

    def _problem(self, error: Exception) -> VideoError:
        if isinstance(error, Image.UnidentifiedImageError):
            empty = os.path.getsize(self.file) == 0
            return VideoError(self.path, f"frame {self.file.name} is {'empty' if empty else 'no JPEG or PNG picture'}")
        if isinstance(error, Image.DecompressionBombError):
            return VideoError(self.path, f"frame {self.file.name} claims more than {MAX_PIXELS:,} pixels")
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
        return VideoError(self.path, f"frame {self.file.name} cannot be decoded ({reason})")
