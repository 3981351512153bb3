"""Reads the tensors of a TorchScript archive, without TorchScript and without pickle.

``torch.load(weights_only=True)`` refuses such archives, and ``torch.jit.load`` runs the code in them. The pickle inside
describes modules and tensors. ``pickletools`` only parses its operations; this module carries them out one by one. A
global in the pickle never becomes a Python object: it stays a name. Operations and names that TorchScript does not need
for tensors are refused.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Refused(Exception):
    """A file holds something that evl does not read. The message is the reason, to follow 'refused: '."""


class Name(NamedTuple):
    """The name of a global in a pickle."""

    module: str
    name: str


class Module:
    """Stands for a scripted module, or another object of TorchScript, and holds its ``state`` from the pickle."""

    def __init__(self):
        self.state = {}


_TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
_ORDERED = Name("collections", "OrderedDict")
# operations that combine as many values from the top of the stack
_COUNTS = {
    **dict.fromkeys(("TUPLE1", "APPEND", "BUILD", "BINPERSID"), 1),
    **dict.fromkeys(("TUPLE2", "SETITEM", "REDUCE", "NEWOBJ"), 2),
    "TUPLE3": 3,
}
_MOST_ATTRIBUTES, _DEEPEST = 200_000, 64


def read_pickle(data: bytes, storage: Callable[[torch.dtype, str, int], Tensor]):
    """Returns the object in the ``data.pkl`` of a TorchScript archive.

    It consists of Modules, dicts, lists, tuples, numbers, text and tensors. ``storage(dtype, key, count)`` returns the
    numbers of a tensor. Raises Refused for any other content, and the errors of a damaged file (ValueError, IndexError,
    KeyError, TypeError, …).
    """
    stack, marks, memo = [], [], {}
    for operation, argument, _ in pickletools.genops(data):
        code = operation.name
        if code == "STOP":
            return stack.pop()
        if code in _VALUES:
            stack.append(_VALUES[code](argument))
        elif code in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif code == "MARK":
            marks.append(stack)
            stack = []
        elif code in ("TUPLE", "APPENDS", "SETITEMS"):
            items, stack = stack, marks.pop()
            _combine(code, items, stack, storage)
        elif code in _COUNTS:
            items = [stack.pop() for _ in range(_COUNTS[code])][::-1]
            _combine(code, items, stack, storage)
        elif code != "PROTO":
            raise Refused(f"the archive uses the operation {code}, which no tensor needs")
    raise ValueError("a pickle without an end")


def _combine(code: str, items: list, stack: list, storage: Callable[[torch.dtype, str, int], Tensor]) -> None:
    """Carries out an operation on ``items``, which were on top of the stack."""
    if code.startswith("TUPLE"):
        stack.append(tuple(items))
    elif code in ("APPEND", "APPENDS"):
        _only(list, stack[-1]).extend(items)
    elif code in ("SETITEM", "SETITEMS"):
        keys = [_only(str | int | float, key) for key in items[::2]]
        _only(dict, stack[-1]).update(zip(keys, items[1::2], strict=True))
    elif code == "BUILD":
        _only(Module, stack[-1]).state = items[0]
    elif code == "BINPERSID":
        stack.append(_storage(items[0], storage))
    else:  # REDUCE, NEWOBJ
        stack.append(_answer(_only(Name, items[0]), _only(tuple, items[1])))


def tensors_below(module) -> dict[str, Tensor]:
    """Returns the tensors of a scripted module by dotted name. Raises Refused for modules nested too deeply."""
    tensors: dict[str, Tensor] = {}
    queue = [("", module, 0)]
    for number in range(_MOST_ATTRIBUTES):
        if not queue:
            return tensors
        name, value, depth = queue.pop()
        if depth > _DEEPEST:
            break
        if isinstance(value, Tensor):
            tensors[name] = value
        elif type(value) is Module and isinstance(value.state, Mapping):
            queue += [(f"{name}.{key}" if number else str(key), part, depth + 1) for key, part in value.state.items()]
    raise Refused("modules nested too deeply, or without end")


def _only(kind, value):
    """Returns ``value``. Raises Refused if it is not of the type ``kind``."""
    if not isinstance(value, kind):
        raise Refused(f"the archive has a {type(value).__name__} where no tensor needs one")
    return value


def _known(text: str) -> Name:
    """Returns the name. Raises Refused unless TorchScript uses it to describe tensors or their containers."""
    name = Name(*text.split(" ", 1))
    if (
        name in (_TENSOR, _ORDERED, Name("torch", "device"))
        or (name.module == "torch" and name.name in STORAGES)
        or name.module in ("__torch__", "torch.jit._pickle")
        or name.module.startswith("__torch__.")
    ):
        return name
    shown = ascii(f"{name.module:.60}.{name.name:.60}")[1:-1]
    raise Refused(
        f"the archive refers to {shown}, which is no tensor: it holds code (Python objects), which is never loaded"
    )


# operations that put a value on the stack, made of their argument
_VALUES: dict[str, Callable[[object], object]] = {
    "NONE": lambda argument: None,
    "NEWTRUE": lambda argument: True,
    "NEWFALSE": lambda argument: False,
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), lambda argument: argument),
    "EMPTY_TUPLE": lambda argument: (),
    "EMPTY_LIST": lambda argument: [],
    "EMPTY_DICT": lambda argument: {},
    "GLOBAL": _known,
}


def _answer(called: Name, arguments: tuple):
    """Returns what a call of the name would give: a tensor, a dict, a list, or a Module without content."""
    if called == _TENSOR:
        return rebuild_tensor(*arguments[:4])
    if called == _ORDERED:  # the hooks of a tensor, always empty
        return {}
    if called.module == "torch.jit._pickle":  # typed lists
        return arguments[0] if arguments and type(arguments[0]) is list else Module()
    if called.module == "torch" and called.name in STORAGES:
        raise Refused(f"the archive calls torch.{called.name}, which no tensor needs")
    return Module()


def _storage(pid, storage: Callable[[torch.dtype, str, int], Tensor]) -> Tensor:
    kind, name, key, _, count = _only(tuple, pid)
    if kind != "storage" or type(name) is not Name or name.name not in STORAGES:
        raise Refused(f"stored data of an unknown kind (a {type(name).__name__})")
    return storage(STORAGES[name.name], _only(str, key), _only(int, count))


def rebuild_tensor(numbers: Tensor, offset: int, size: tuple, stride: tuple) -> Tensor:
    """Returns a view of stored numbers. Raises Refused if it would have more elements than there are numbers."""
    if not isinstance(numbers, Tensor):
        raise Refused("a tensor without stored numbers")
    if min((*size, *stride, offset)) < 0:
        raise Refused(f"a tensor of shape {tuple(size)}, strides {tuple(stride)}, offset {offset}")
    if math.prod(size) > numbers.numel():  # with a stride of 0, a small file could claim terabytes
        raise Refused(f"a tensor of shape {tuple(size)} out of {numbers.numel()} stored numbers")
    return numbers.as_strided(size, stride, offset)  # checks bounds
