"""Names of the pictures in a folder → the frames of one video, in order. No picture is opened.

Names that differ in one number are a series. If a folder holds several series, those with words such as flow, depth,
mask or cover in their names are left out. If several series remain, the folder is refused, and the error lists them.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

# words in the names of pictures that were computed from frames, or that programs add to a folder
NO_FRAMES = frozenset(
    (  # noqa: SIM905
        "flow flowx flowy flowu flowv optflow opticalflow u v x y depth depths depthmap disparity disp mask masks "
        "matte alpha seg segm segmentation semantic semantics instance instances panoptic label labels labelids gt "
        "groundtruth annotation annotations normal normals edge edges canny heatmap heatmaps saliency confidence "
        "cover thumb thumbs thumbnail thumbnails preview poster folder albumart albumartsmall fanart backdrop banner "
        "contactsheet storyboard"
    ).split()
)
DATE_AND_TIME = re.compile(
    r"(?<![0-9])([0-9]{4})[-_.]?([0-9]{2})[-_.]?([0-9]{2})[-_ .T]*([0-9]{2})[-_.:h]?([0-9]{2})[-_.:m]?([0-9]{2})"
    r"(?:[-_.,s]([0-9]{3,9}))?(?![0-9])"
)
TIME = re.compile(r"(?<![0-9])([0-9]{1,2})[-:h]([0-9]{2})[-:m]([0-9]{2})(?:[-_.,s]([0-9]{1,9}))?(?![0-9])")
SECONDS = re.compile(r"(?<![0-9])([0-9]+)[.,]([0-9]{3,9})(?![0-9])")
EPOCH_DIGITS = 9  # seconds since 1970; the number of a video has fewer digits
SHORTEST_STEP = 10**9 // 250  # nanoseconds; a shorter step means a counter after a dot, not a time
LISTED = 6  # names in an error


class Series(NamedTuple):
    """``pattern``: the common form of the names, with # for the number that differs. ``names`` are in order."""

    pattern: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.pattern} ({len(self.names)})" if len(self.names) > 1 else self.names[0]


class Frames(NamedTuple):
    """The series that is the video, and the other series of the folder, which are left out."""

    series: Series
    left_out: tuple[Series, ...]


class UnclearError(ValueError):
    """Names do not show which pictures are the frames, or their order. The message continues "the folder …"."""


class _Name(NamedTuple):
    name: str
    stem: str
    ending: str
    texts: tuple[str, ...]
    digits: tuple[str, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(map(int, self.digits))


@lru_cache(maxsize=256)  # reading a clip calls this twice
def frames_among(names: tuple[str, ...]) -> Frames:
    """Finds the frames among ``names``, the names of all pictures of a folder, at least one. Raises UnclearError.

    A single picture is a video of one frame, whatever its name is.
    """
    by_texts: dict[tuple[str, ...], list[_Name]] = defaultdict(list)
    for name in names:
        parsed = _parsed(name)
        by_texts[parsed.texts].append(parsed)
    found = [series for group in by_texts.values() for series in _series_of(group)]
    if len(found) == 1:
        return Frames(found[0], ())
    words = [_words(series) for series in found]
    common = frozenset.intersection(*words)
    pictures = [series for series, own in zip(found, words, strict=True) if not (own - common) & NO_FRAMES]
    if len(pictures) == 1:
        return Frames(pictures[0], tuple(series for series in found if series is not pictures[0]))
    if all(len(series.names) == 1 for series in found):
        raise UnclearError(
            f"holds {len(found)} pictures whose names do not show their order ({_listed(sorted(map(str, found)))}); "
            "number them: 00001.jpg, 00002.jpg, …"
        )
    found.sort(key=lambda series: (-len(series.names), series.pattern))
    raise UnclearError(
        f"holds several series of pictures, which may be several videos: {_listed(list(map(str, found)))}; "
        "put each into a folder of its own"
    )


def gaps(series: Series) -> tuple[str, ...]:
    """The names before which numbers are missing; () if the numbers of the series do not mostly count by one step."""
    names = [_parsed(name).numbers for name in series.names]
    varying = _varying(names)
    if len(varying) != 1 or len(names) < 3:
        return ()
    steps = [after[varying[0]] - before[varying[0]] for before, after in pairwise(names)]
    step, count = Counter(steps).most_common(1)[0]
    if count < 0.5 * len(steps):  # then the numbers are times, whose steps may differ
        return ()
    return tuple(name for name, here in zip(series.names[1:], steps, strict=True) if here >= 2 * step)


def _parsed(name: str) -> _Name:
    stem, ending = os.path.splitext(unicodedata.normalize("NFC", name))
    parts = re.split("([0-9]+)", stem)
    ending = ".jpg" if ending.lower() == ".jpeg" else ending.lower()
    return _Name(name, stem, ending, tuple(text.casefold() for text in parts[::2]), tuple(parts[1::2]))


def _words(series: Series) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W\d_]+", series.pattern.rsplit(".", 1)[0].casefold()))


def _series_of(group: list[_Name]) -> list[Series]:
    endings = {name.ending for name in group}
    if len(endings) > 1 and len({name.numbers for name in group}) < len(group):  # such as 1.jpg and 1.png
        return [s for ending in sorted(endings) for s in _series_of([n for n in group if n.ending == ending])]
    by_numbers: dict[tuple[int, ...], _Name] = {}
    for name in group:
        if other := by_numbers.get(name.numbers):
            raise UnclearError(
                f"holds two pictures of the same number, {min(other.name, name.name)} and "
                f"{max(other.name, name.name)}; remove one"
            )
        by_numbers[name.numbers] = name
    varying = _varying(list(by_numbers))
    if len(varying) < 2:
        return [_series([by_numbers[numbers] for numbers in sorted(by_numbers)], varying)]
    if ordered := _counted_on(group, varying) or _timed(group, varying):
        return [_series(ordered, varying)]
    # as in video1_frame0001 and video2_frame0001: the number with the most values counts frames, the others name series
    counter = max(varying, key=lambda place: (len({name.numbers[place] for name in group}), place))
    parts: dict[tuple[int, ...], list[_Name]] = defaultdict(list)
    for name in group:
        parts[name.numbers[:counter] + name.numbers[counter + 1 :]].append(name)
    return [_series(sorted(part, key=lambda name: name.numbers[counter]), [counter]) for part in parts.values()]


def _varying(numbers: list[tuple[int, ...]]) -> list[int]:
    return [place for place, values in enumerate(zip(*numbers, strict=True)) if len(set(values)) > 1]


def _counted_on(group: list[_Name], varying: list[int]) -> list[_Name] | None:
    """The names in the order of a counter, if one of the numbers is a counter; else None.

    A counter is different in each name, and no other number falls in its order (the other is then a time). Each other
    number must come after the counter or be different in each name, too: a number in front that is the same for some
    names may be that of a video.
    """
    for counter in varying:
        ordered = sorted(group, key=lambda name: name.numbers[counter])
        values = list(zip(*(name.numbers for name in ordered), strict=True))
        if all(
            list(values[place]) == sorted(values[place]) and (len(set(values[place])) == len(group) or place > counter)
            for place in varying
        ):
            return ordered
    return None


def _timed(group: list[_Name], varying: list[int]) -> list[_Name] | None:
    """The names in the order of a time, if all numbers that differ are parts of a time; else None."""
    for pattern in (DATE_AND_TIME, TIME, SECONDS):
        times, rests, widths, is_sure = [], set(), set(), pattern is DATE_AND_TIME
        for name in group:
            match = pattern.search(name.stem)
            if match is None or (time := _nanoseconds(pattern, match)) is None:
                break
            times.append(time)
            rests.add((name.stem[: match.start()].casefold(), name.stem[match.end() :].casefold()))
            widths.add(len(match[match.lastindex]))
            is_sure = is_sure or (pattern is SECONDS and len(match[1]) >= EPOCH_DIGITS)
        else:
            ordered = sorted(range(len(group)), key=lambda place: times[place])
            steps = [times[b] - times[a] for a, b in pairwise(ordered)]
            # the steps of times are nearly equal; where numbers of several videos are mixed, they are not
            is_even = len(widths) == 1 and max(steps) <= 3 * min(steps) and min(steps) >= SHORTEST_STEP
            if len(rests) == 1 and min(steps) > 0 and (is_sure or is_even):
                return [group[place] for place in ordered]
    return None


def _nanoseconds(pattern: re.Pattern, match: re.Match) -> int | None:
    if pattern is SECONDS:
        whole, fraction = int(match[1]), match[2]
    elif pattern is TIME:
        hours, minutes, seconds = map(int, match.groups()[:3])
        if max(minutes, seconds) > 59:
            return None
        whole, fraction = 3600 * hours + 60 * minutes + seconds, match[4]
    else:
        try:
            moment = datetime(*map(int, match.groups()[:6]))
        except ValueError:
            return None
        whole, fraction = int((moment - datetime(1, 1, 1)).total_seconds()), match[7]
    return whole * 10**9 + int((fraction or "").ljust(9, "0"))


def _series(ordered: list[_Name], varying: Sequence[int]) -> Series:
    first = ordered[0]
    parts = re.split("([0-9]+)", first.stem)
    for place in varying:
        parts[2 * place + 1] = "#"
    return Series("".join(parts) + os.path.splitext(first.name)[1], tuple(name.name for name in ordered))


def _listed(parts: list[str]) -> str:
    more = f" and {len(parts) - LISTED} more" if len(parts) > LISTED else ""
    return ", ".join(parts[:LISTED]) + more
