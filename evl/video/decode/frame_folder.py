"""A folder of pictures → frames: the form of Something-Something v1 and of many extracted data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from evl.errors import VideoError
from evl.types import VideoInfo
from evl.video.decode.container import MAX_PIXELS
from evl.video.decode.frame_series import Frames, UnclearError, frames_among
from evl.video.decode.missing import AWAY, os_reason

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
FRAMES_PER_SECOND = 25.0  # a convention: folders of pictures have no frame rate
_SIDEWAYS = {5, 6, 7, 8}  # EXIF orientations that swap width and height


def frame_files(folder: str | Path) -> list[Path]:
    """The pictures of a folder that are its frames, in the order of the numbers in their names: 9.jpg before 10.jpg.

    Hidden files, files that are not plain, and pictures of another series are left out (``frame_series``).
    Raises VideoError if the folder cannot be listed, or if its names do not show which pictures are the frames.
    """
    found = frames_in(folder)
    return [Path(folder) / name for name in found.series.names] if found is not None else []


def frames_in(folder: str | Path) -> Frames | None:
    """The frames of a folder and the other series of pictures in it, by name; None if there are no pictures.

    Raises VideoError as ``frame_files`` does.
    """
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
    """Whether this can be the name of a frame: it has the ending of a picture and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def probe_folder(path: str | Path) -> VideoInfo:
    """The number of frames and the size of the first one, with codec ``frames``.

    Pictures have no times of their own, so frame i is at i/25 s. Raises VideoError if there are no frames, or if the
    first one is not a picture.
    """
    files = _files(path)
    with _open_picture(path, files[0]) as image:
        width, height = image.size
        if image.getexif().get(0x0112) in _SIDEWAYS:
            width, height = height, width
    times = tuple(i / FRAMES_PER_SECOND for i in range(len(files)))
    return VideoInfo(str(path), times, width, height, "frames")


def read_pictures(path: str | Path, numbers: Sequence[int]) -> dict[int, np.ndarray]:
    """Reads frames by number: number → (H,W,3) uint8, RGB, upright. Opens only the wanted files.

    A frame with another size than the first of ``numbers`` is resized to that size. Raises VideoError, which names the
    picture, if one is missing or cannot be decoded.
    """
    files, shape = _files(path), None
    _require_frames(path, files, max(numbers) + 1)
    pictures: dict[int, np.ndarray] = {}
    for number in numbers:
        pictures[number] = _decode(path, files[number], shape)
        shape = pictures[number].shape
    return pictures


def each_picture(path: str | Path, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray | VideoError]]:
    """Yields (number, picture (H,W,3) in the size of the first, or the VideoError that names it), one at a time."""
    files, shape = _files(path), None
    for number in numbers:
        try:
            _require_frames(path, files, number + 1)
            picture = _decode(path, files[number], shape)
            shape = picture.shape
            yield number, picture
        except VideoError as error:
            yield number, error


def check_frames(path: str | Path, first: int = 0, count: int | None = None) -> None:
    """Decodes the pictures first … first+count−1, by default all. Raises VideoError about the first damaged one."""
    files = _files(path)
    last = len(files) if count is None else first + count
    _require_frames(path, files, last)
    for file in files[first:last]:
        _decode(path, file, None)


def _files(path: str | Path) -> list[Path]:
    files = frame_files(path)
    if not files:
        raise VideoError(path, "is a folder without JPEG or PNG frames")
    return files


def _require_frames(path: str | Path, files: list[Path], count: int) -> None:
    if count > len(files):
        raise VideoError(path, f"has {len(files)} frames, but frame {count - 1} was wanted")


def _decode(path: str | Path, file: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    """(H,W,3) uint8, resized to ``shape`` if that is given."""
    with _open_picture(path, file) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):  # 16-bit gray: PIL would clip it to white
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert("RGB")
        if shape is not None and (image.height, image.width) != shape[:2]:
            image = image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
        return np.array(image)


@contextmanager
def _open_picture(path: str | Path, file: Path) -> Iterator[Image.Image]:
    """Opens one picture of the folder ``path``; any error while it is used becomes a VideoError that names the file."""
    frame = f"frame {file.name}"
    try:
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise VideoError(path, f"{frame} claims {image.width}×{image.height} pixels")
            yield image
    except VideoError:
        raise
    except Image.UnidentifiedImageError:
        is_empty = os.path.getsize(file) == 0
        raise VideoError(path, f"{frame} is {'empty' if is_empty else 'not a JPEG or PNG picture'}") from None
    except Image.DecompressionBombError:
        raise VideoError(path, f"{frame} claims more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # PIL raises many types for damaged files, such as SyntaxError, ValueError, zlib.error
        if isinstance(error, OSError) and error.errno in AWAY:
            raise VideoError(path, os_reason(error)) from None
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
        raise VideoError(path, f"{frame} cannot be decoded ({reason})") from None
