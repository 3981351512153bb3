"""What a user can do wrong, as a small tree. Every message says what came, what was wanted, what to do."""

import difflib
from collections.abc import Iterable


class EVLError(Exception):
    """Base of all errors that are the input's fault, not the program's; commands print them as one sentence."""


class ConfigError(EVLError, ValueError):
    """A setting that does not exist, has the wrong type, or cannot go with another."""


class DataError(EVLError, ValueError):
    """A manifest or folder that cannot be understood as labelled videos."""


class UnlabeledError(DataError):
    """A folder of which no video has a label, as none lies in a class folder."""


class PathTypeError(EVLError, TypeError):
    """Something that is no path where a path is wanted."""


class VideoError(EVLError):
    """One video that cannot be used: missing, damaged, or without pictures.

    ``reason`` is a short text that fits into a table; ``path`` is the file.
    """

    def __init__(self, path, reason: str):
        self.path = str(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")

    def __reduce__(self):  # exceptions with two arguments do not pickle by themselves
        return type(self), (self.path, self.reason)


class BackboneError(EVLError, ValueError):
    """A backbone that is unknown, cannot work here, or whose weights do not fit."""


class MissingWeightsError(BackboneError):
    """Weights that are not on this machine and could not be fetched."""


class CheckpointError(EVLError, ValueError):
    """A saved model or checkpoint that is missing, damaged, or belongs to something else."""


class StoreError(EVLError, ValueError):
    """A store of features that is missing, unfinished, damaged, or made otherwise than a run needs it."""


class SaveError(EVLError, OSError):
    """Writing failed (disk full, no permission); what was there before is still there."""


class ExistsError(SaveError):
    """Something of that name is there already, and was not to be replaced."""


class RunError(EVLError):
    """A run that cannot start or go on: folder in use, too many damaged videos, loss not finite."""


def plural(count: int, noun: str) -> str:
    """``1 video``, ``3 videos``, ``1,200 videos``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence on an unknown name: the likely meant ones, or all if none is near and there are few."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(known)}" if len(known) <= 30 else ""
