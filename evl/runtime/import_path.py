"""Imports: names of evl when they are first used, and decoders, encoders and metrics from outside the package, named by
their import path: ``my_module:my_name``.

Importing a module executes it. So evl imports only from where Python searches anyway (installed packages, PYTHONPATH).
It adds nothing to that path, and never executes code from the folder of a saved model.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
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
    if "__main__" in module_name.split(".")[1:]:
        raise ConfigError(f"{prefix}: {module_name} is a program; name a module that can be imported")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{prefix}: {module_name} imports {error.name}, which is not installed") from error
        raise ConfigError(
            f"{prefix}: Python finds no module {error.name}; install its package, or put the folder that holds it into "
            "the environment variable PYTHONPATH"
        ) from None
    except (Exception, SystemExit) as error:  # the module's own code can raise anything
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
        for file in _files_executed(name.partition(":")[0]):
            if folder in Path(file).resolve().parents:
                raise CheckpointError(
                    f"{folder} names {name}, which Python would import from {file}, inside the model's own folder. "
                    "evl never executes code from there; if you wrote this file, move it out of the folder"
                )


def _files_executed(module_name: str) -> Iterator[str]:
    """The files that importing a module would execute, its packages' first. Nothing is imported to find them.

    A folder without ``__init__.py`` is a package too: a model in ``models/x`` could name ``models.x.code:MyDecoder``
    where Python was started beside ``models``.
    """
    places = None
    for dots in range(module_name.count(".") + 1):
        name = ".".join(module_name.split(".")[: dots + 1])
        try:
            found = [importlib.util.find_spec(name)] if not dots else [_find_spec(name, place) for place in places]
        except ValueError:  # a module without a file, such as __main__ of a notebook
            return
        found = [spec for spec in found if spec is not None]
        with_code = [spec for spec in found if spec.has_location][:1]
        yield from (spec.origin for spec in with_code)
        places = [place for spec in with_code or found for place in spec.submodule_search_locations or ()]


def _find_spec(name: str, place: str):
    finder = pkgutil.get_importer(place)
    return finder and finder.find_spec(name)


def first_used(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A ``__getattr__`` for ``package``. ``homes`` maps each name to the module that defines it, or to itself as a
    module."""

    def __getattr__(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = import_module(homes[name])
        value = home if homes[name] == f"{package}.{name}" else getattr(home, name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
