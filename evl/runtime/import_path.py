"""Code from outside the package: decoders and encoders that are named by where they are imported from.

Importing a module executes it. So only what Python finds by itself is imported (installed packages, PYTHONPATH), as
any import statement would; nothing is added to that path, and nothing in the folder of a saved model is executed.
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
    """Whether a name means a class from outside: ``my_package.my_module:MyClass``."""
    return _IMPORT_PATH.fullmatch(name) is not None


def import_class(name: str, setting: str, kind: type) -> type:
    """The class, a subclass of ``kind``, that ``my_module:MyClass`` names, imported from where Python finds modules.

    ``setting`` is named in errors. Raises ConfigError where there is no such module, its import fails, or the name is
    no such class.
    """
    module_name, _, class_name = name.partition(":")
    said = f"{setting}={name}"
    if module_name.split(".")[0] in sys.stdlib_module_names - {"__main__"}:
        raise ConfigError(f"{said}: {module_name} is a module of Python itself, which has no {kind.__name__}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{said}: {module_name} imports {error.name}, which is not installed") from error
        raise ConfigError(
            f"{said}: Python finds no module {error.name}; install its package, or put the folder it lies in into the "
            "environment variable PYTHONPATH"
        ) from None
    except Exception as error:  # whatever the module's own code raises
        raise ConfigError(f"{said}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    found = getattr(module, class_name, None)
    if found is None:
        public = [one for one in vars(module) if not one.startswith("_")]
        raise ConfigError(f"{said}: {module_name} has no {class_name}{nearest(class_name, public)}")
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ConfigError(f"{said}: {class_name} is no subclass of {kind.__module__}.{kind.__name__}, but {found!r}")
    return found


def refuse_code_inside(folder: str | Path, *names: str) -> None:
    """CheckpointError where Python would import one of ``names`` (``my_module:MyClass``) from inside ``folder``: a
    model's folder is read, and nothing in it is ever executed."""
    folder = Path(folder).resolve()
    for name in filter(is_import_path, names):
        module = name.partition(":")[0].split(".")[0]
        try:
            spec = importlib.util.find_spec(module)  # of the topmost package, which imports nothing
        except ValueError:  # a module that was made by hand, such as __main__ of a notebook
            continue
        for place in (spec.origin, *(spec.submodule_search_locations or ())) if spec is not None else ():
            if place is not None and folder in Path(place).resolve().parents:
                raise CheckpointError(
                    f"{folder} names {name}, and Python would import it from {place}, inside the model's own folder. "
                    "evl never executes code from there: if you wrote it, move it out of the folder"
                )
