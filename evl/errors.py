"""The errors that users can cause. Every message says what was given, what was expected, and what to do.

Arguments and settings that the caller can change are in backquotes: `` `out` ``, `` `num_clips=4` ``. A command prints
them as its options (``evl.cli.common.as_options``).
"""

import difflib
import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

_PACKAGE = os.path.dirname(__file__)


class EVLError(Exception):
    """Base of all errors that the input causes, not a bug in evl; commands print only the message."""

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show of it: the line that called evl, and the sentence. ``%debug`` has the rest."""
        frames = traceback.extract_tb(self.__traceback__)
        *_, called = [None, *takewhile(lambda frame: not frame.filename.startswith(_PACKAGE), frames)]
        lines = [] if called is None else [f"line {called.lineno}: {called.line}"]
        return [*lines, f"{type(self).__name__}: {self}"]


class ConfigError(EVLError, ValueError):
    """A setting does not exist, has the wrong type, or conflicts with another."""


class DataError(EVLError, ValueError):
    """A manifest or folder cannot be read as labeled videos."""


class UnlabeledError(DataError):
    """No video of a folder has a label, because none is in a class folder."""


class NotFiniteError(DataError):
    """What a model makes of a video is NaN or infinite. ``models``: which of the models that were read together."""

    def __init__(self, message: str, models: tuple[int, ...]):
        super().__init__(message)
        self.models = models

    def __reduce__(self):
        return type(self), (str(self), self.models)


class PathTypeError(EVLError, TypeError):
    """A value is not a path, where a path is expected."""


class VideoError(EVLError):
    """One video cannot be used: it is missing, damaged, or has no pictures.

    ``path`` is the file. ``reason`` is a short text that continues the sentence "the file …" and fits into a table.
    """

    def __init__(self, path, reason: str):
        self.path = str(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")

    def __reduce__(self):  # Python cannot unpickle an exception with two arguments without this
        return type(self), (self.path, self.reason)


class BackboneError(EVLError, ValueError):
    """A backbone is unknown, cannot be used here, or its weights do not fit."""


class MissingWeightsError(BackboneError):
    """Weights are not on this machine and could not be downloaded."""


class CheckpointError(EVLError, ValueError):
    """A saved model or checkpoint is missing, damaged, or does not belong here."""


class StoreError(EVLError, ValueError):
    """A store of features is missing, unfinished, damaged, or does not suit the run."""


class SaveError(EVLError, OSError):
    """Writing failed (disk full, no permission); the old content is unchanged."""


class ExistsError(SaveError):
    """The file exists already and must not be replaced."""


class RunError(EVLError):
    """A run cannot start or continue: folder in use, too many damaged videos, loss not finite."""


class FinishedError(RunError):
    """Everything is done already."""


def plural(count: int, noun: str) -> str:
    """``1 video``, ``3 videos``, ``1,200 videos``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def one_line(error: object, most: int = 300) -> str:
    """What another library says, on one line and not too long, for a message in brackets."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def quoted(names: Iterable[str]) -> str:
    """`` `root`, `layout` ``: the arguments of these names, in an error."""
    return ", ".join(f"`{name}`" for name in names)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: similar names, or all known names if they are at most 30."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(known)}" if len(known) <= 30 else ""


def nearest_setting(name: str, sections: Mapping[str, Sequence[str]], *, exact: bool = False) -> str:
    """Returns the end of an error about a field without its section, or in a wrong one.

    It names the field ``name``, or else (not if ``exact``) similar ones, with their sections; '' if there is none.
    ``sections``: the names of the fields of each section.
    """
    places = [f"{section}.{field}" for section, fields in sections.items() for field in fields]
    fields = {place.partition(".")[2] for place in places}
    near = [name] if exact or name in fields else difflib.get_close_matches(name, fields, n=3, cutoff=0.6)
    meant = [place for place in places if place.partition(".")[2] in near]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def validation_sentence(problems: Iterable[Mapping], sections: Mapping[str, Sequence[str]]) -> str:
    """Returns pydantic's problems with a config as one sentence; ``sections`` as for ``nearest_setting``."""
    sentences: dict[str, str] = {}
    for problem in problems:
        place = [str(part) for part in problem["loc"]]
        where = ".".join(place[:2])
        if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            known = sections[place[0]] if len(place) > 1 else list(sections)
            hint = nearest_setting(place[-1], sections, exact=True) or nearest(place[-1], known)
            sentences[where] = f"no setting {where!r}{hint}"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            also = sentences.get(where)
            value = f" (got {shortened(problem['input'])})" if len(place) > 1 else ""
            sentences[where] = f"{also}, or {message}" if also else f"{where}: {message}{value}"
    return "; ".join(sentences.values())


def shortened(value: object) -> str:
    """Returns ``repr(value)``, cut after 200 characters."""
    return repr(value) if len(repr(value)) <= 200 else f"{value!r:.200}…"
