"""The tensors of a TorchScript archive, read without TorchScript and without pickle.

``torch.load(weights_only=True)`` refuses such archives, and ``torch.jit.load`` runs what is in them. The pickle inside
describes modules and tensors. Here its operations are walked through one by one (``pickletools`` only parses). A name
in it never becomes a Python object: it stays a name. Only what TorchScript writes around tensors is answered; all else
is refused.
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
    """What stands in a file and is not taken from it: the reason, to stand behind 'refused: '."""


class Name(NamedTuple):
    """A global of a pickle: only its name."""

    module: str
    name: str


class Module:
    """Stands for a scripted module, or another object of TorchScript: holds what the pickle says of it."""

    def __init__(self):
        self.state = {}


_TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
_ORDERED = Name("collections", "OrderedDict")
_PUSHED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CONSTANTS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MOST_ATTRIBUTES, _DEEPEST = 200_000, 64


def read_pickle(data: bytes, storage: Callable[[torch.dtype, str, int], Tensor]):
    """What the ``data.pkl`` of a TorchScript archive describes: modules, dicts, lists, tuples, numbers, text, tensors.

    ``storage(dtype, key, count)`` gives the numbers of a tensor. Raises Refused for anything that is none of these, and
    the errors of a damaged file (ValueError, IndexError, KeyError, TypeError, …).
    """
    stack, marks, memo = [], [], {}
    for operation, argument, _ in pickletools.genops(data):
        code = operation.name
        if code == "STOP":
            return stack.pop()
        elif code in _PUSHED:
            stack.append(_PUSHED[code])
        elif code in _CONSTANTS:
            stack.append(argument)
        elif code in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif code == "MARK":
            marks.append(stack)
            stack = []
        elif code in _TUPLES:
            start = len(stack) - _TUPLES[code]
            stack[start:] = [tuple(stack[start:])]
        elif code == "EMPTY_LIST":
            stack.append([])
        elif code == "EMPTY_DICT":
            stack.append({})
        elif code in ("TUPLE", "APPENDS", "SETITEMS"):
            items, stack = stack, marks.pop()
            if code == "TUPLE":
                stack.append(tuple(items))
            elif code == "APPENDS":
                _only(list, stack[-1]).extend(items)
            else:
                keys = [_only(str | int | float, key) for key in items[::2]]
                _only(dict, stack[-1]).update(zip(keys, items[1::2], strict=True))
        elif code == "APPEND":
            item = stack.pop()
            _only(list, stack[-1]).append(item)
        elif code == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _only(dict, stack[-1])[_only(str | int | float, key)] = value
        elif code == "GLOBAL":
            stack.append(_known(argument))
        elif code == "BINPERSID":
            stack.append(_storage(stack.pop(), storage))
        elif code in ("REDUCE", "NEWOBJ"):
            arguments, called = _only(tuple, stack.pop()), _only(Name, stack.pop())
            stack.append(_answer(called, arguments))
        elif code == "BUILD":
            state = stack.pop()
            _only(Module, stack[-1]).state = state
        elif code != "PROTO":
            raise Refused(f"the archive uses the operation {code}, which no tensor needs")
    raise ValueError("a pickle without an end")


def tensors_below(module) -> dict[str, Tensor]:
    """The tensors of a scripted module by dotted name. Refused for modules that are nested without end."""
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
    raise Refused("modules nested without end")


def _only(kind, value):
    """``value``, if its type is the expected one."""
    if not isinstance(value, kind):
        raise Refused(f"the archive has a {type(value).__name__} where no tensor needs one")
    return value


def _known(asked: str) -> Name:
    """The name, if it is one of those that describe tensors or what TorchScript puts around them."""
    known = Name(*asked.split(" ", 1))
    if (
        known in (_TENSOR, _ORDERED, Name("torch", "device"))
        or (known.module == "torch" and known.name in STORAGES)
        or known.module in ("__torch__", "torch.jit._pickle")
        or known.module.startswith("__torch__.")
    ):
        return known
    asked = ascii(f"{known.module:.60}.{known.name:.60}")[1:-1]
    raise Refused(
        f"the archive asks for {asked}, which is no tensor: it holds code (Python objects), which is never loaded"
    )


def _answer(called: Name, arguments: tuple):
    if called == _TENSOR:
        return rebuild_tensor(*arguments[:4])
    if called == _ORDERED:  # of hooks, always empty
        return {}
    if called.module == "torch.jit._pickle":  # lists with a type
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
    """A view on stored numbers. Raises Refused where it would be larger than they are."""
    if not isinstance(numbers, Tensor):
        raise Refused("a tensor without stored numbers")
    if min((*size, *stride, offset)) < 0:
        raise Refused(f"a tensor of shape {tuple(size)}, strides {tuple(stride)}, offset {offset}")
    if math.prod(size) > numbers.numel():  # a stride of 0 would make terabytes out of nothing
        raise Refused(f"a tensor of shape {tuple(size)} out of {numbers.numel()} stored numbers")
    return numbers.as_strided(size, stride, offset)  # checks bounds
