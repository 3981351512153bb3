"""Decoders, encoders and metrics from outside the package, named by their import path: ``my_module:my_name``.

Importing a module executes it. So evl imports only from where Python searches anyway (installed packages, PYTHONPATH).
It adds nothing to that path, and never executes code from the folder of a saved model.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path

from evl.errors import CheckpointError, ConfigError, nearest

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def is_import_path(name: str) -> bool:
    """Whether ``name`` has the form of an import path: ``my_package.my_module:MyClass``."""
    return _IMPORT_PATH.fullmatch(name) is not None


def import_object(name: str, setting: str) -> object:
    """Imports what ``my_module:my_name`` names.

    Errors name the ``setting``. Raises ConfigError if there is no such module, if its import fails, or if it has no
    such name.
    """
    module_name, _, own_name = name.partition(":")
    prefix = f"{setting}={name}"
    if module_name.split(".")[0] in sys.stdlib_module_names - {"__main__"}:
        raise ConfigError(f"{prefix}: {module_name} is a module of Python itself; name one of your own")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{prefix}: {module_name} imports {error.name}, which is not installed") from error
        raise ConfigError(
            f"{prefix}: Python finds no module {error.name}; install its package, or put the folder that holds it into "
            "the environment variable PYTHONPATH"
        ) from None
    except Exception as error:  # the module's own code can raise anything
        raise ConfigError(f"{prefix}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    found = getattr(module, own_name, None)
    if found is None:
        public = [one for one in vars(module) if not one.startswith("_")]
        raise ConfigError(f"{prefix}: {module_name} has no {own_name}{nearest(own_name, public)}")
    return found


def import_class(name: str, setting: str, kind: type) -> type:
    """Imports the class that ``my_module:MyClass`` names; it must be a subclass of ``kind``.

    Raises ConfigError as ``import_object`` does, and for anything but such a class.
    """
    found = import_object(name, setting)
    if not (isinstance(found, type) and issubclass(found, kind)):
        base, own_name = f"{kind.__module__}.{kind.__name__}", name.partition(":")[2]
        raise ConfigError(f"{setting}={name}: {own_name} is not a subclass of {base}, but {found!r}")
    return found


def refuse_code_inside(folder: str | Path, *names: str) -> None:
    """Raises CheckpointError if Python would import one of ``names`` (``my_module:MyClass``) from inside ``folder``.

    evl reads a model's folder, but never executes code in it.
    """
    folder = Path(folder).resolve()
    for name in filter(is_import_path, names):
        module = name.partition(":")[0].split(".")[0]
        try:
            spec = importlib.util.find_spec(module)  # for the top package only, because that imports nothing
        except ValueError:  # a module without a file, such as __main__ of a notebook
            continue
        for place in (spec.origin, *(spec.submodule_search_locations or ())) if spec is not None else ():
            if place is not None and folder in Path(place).resolve().parents:
                raise CheckpointError(
                    f"{folder} names {name}, which Python would import from {place}, inside the model's own folder. "
                    "evl never executes code from there; if you wrote this file, move it out of the folder"
                )
