"""Pickles read without pickle: a small machine that knows tensors, containers and numbers, and can call nothing.

``torch.save`` and TorchScript describe their tensors in a pickle, and a pickle is a program. Here its operations are
walked through one by one (``pickletools`` only parses). A name in it never becomes a Python object: it stays a
name, and the few that describe tensors are answered by this file. Everything else is refused.
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


class Inert:
    """Stands for an object of any class: holds what the pickle says of it, does nothing."""

    def __init__(self):
        self.state = {}


_PUSHED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CONSTANTS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(data: bytes, storage: Callable[[torch.dtype, str, int], Tensor]):
    """What a pickle of tensors describes: dicts, lists, tuples, numbers, text, tensors, and ``Inert`` objects.

    ``storage(dtype, key, count)`` gives the numbers of a tensor. Raises Refused for anything that is none of these,
    and the errors of a damaged file (ValueError, IndexError, KeyError, TypeError, …).
    """
    stack, marks, memo = [], [], {}
    for operation, argument, _ in pickletools.genops(data):
        code = operation.name
        if code in ("PROTO", "FRAME"):
            continue
        if code == "STOP":
            return stack.pop()
        if code in _PUSHED:
            stack.append(_PUSHED[code])
        elif code in _CONSTANTS:
            stack.append(argument)
        elif code in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif code == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif code == "MARK":
            marks.append(stack)
            stack = []
        elif code in _TUPLES:
            count = _TUPLES[code]
            if count > len(stack):
                raise IndexError("stack is empty")
            items = tuple(stack[len(stack) - count :])
            del stack[len(stack) - count :]
            stack.append(items)
        elif code == "EMPTY_LIST":
            stack.append([])
        elif code == "EMPTY_DICT":
            stack.append({})
        elif code in ("TUPLE", "LIST", "DICT", "APPENDS", "SETITEMS"):
            items, stack = stack, marks.pop()
            _close(code, items, stack)
        elif code == "APPEND":
            item = stack.pop()
            _list(stack[-1]).append(item)
        elif code == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _dict(stack[-1])[key] = value
        elif code == "GLOBAL":
            stack.append(_known(*argument.split(" ", 1)))
        elif code == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            stack.append(_known(module, name))
        elif code == "BINPERSID":
            stack.append(_storage(stack.pop(), storage))
        elif code in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            stack.append(_answer(called, arguments))
        elif code == "BUILD":
            state, target = stack.pop(), stack[-1]
            if type(target) is Inert:
                target.state = state
            elif type(target) is not dict:  # a state dict's _metadata is not needed
                raise Refused(f"the archive changes a {type(target).__name__}, which no tensor needs")
        else:
            raise Refused(f"the archive uses the operation {code}, which no tensor needs")
    raise ValueError("a pickle without an end")


def _close(code: str, items: list, stack: list) -> None:
    if code == "TUPLE":
        stack.append(tuple(items))
    elif code == "LIST":
        stack.append(items)
    elif code == "APPENDS":
        _list(stack[-1]).extend(items)
    else:
        target = {} if code == "DICT" else _dict(stack[-1])
        target.update(zip(items[::2], items[1::2], strict=True))
        if code == "DICT":
            stack.append(target)


def _list(value) -> list:
    if type(value) is not list:
        raise Refused(f"the archive appends to a {type(value).__name__}")
    return value


def _dict(value) -> dict:
    if type(value) is not dict:
        raise Refused(f"the archive sets items of a {type(value).__name__}")
    return value


_TYPES = {str(dtype).removeprefix("torch.") for dtype in STORAGES.values()}
_TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = Name("torch._utils", "_rebuild_parameter")
_ORDERED = Name("collections", "OrderedDict")
_INERT = {Name("argparse", "Namespace"), Name("torch", "device"), Name("torch", "Size")}


def _known(module, name) -> Name:
    """The name itself, if it is one of those that describe tensors or what stands around them."""
    known = Name(str(module), str(name))
    is_storage = known.module == "torch" and known.name in STORAGES
    is_dtype = known.module == "torch" and known.name in _TYPES
    if (
        known in (_TENSOR, _PARAMETER, _ORDERED)
        or known in _INERT
        or is_storage
        or is_dtype
        or known.module in ("__torch__", "torch.jit._pickle")
        or known.module.startswith("__torch__.")
    ):
        return known
    asked = ascii(f"{known.module:.60}.{known.name:.60}")[1:-1]
    raise Refused(
        f"the archive asks for {asked}, which is no tensor: it holds code (Python objects), which is never loaded"
    )


def _answer(called, arguments):
    if type(called) is not Name or type(arguments) is not tuple:
        raise Refused(f"the archive calls a {type(called).__name__}, which no tensor needs")
    if called == _TENSOR:
        return rebuild_tensor(*arguments[:4])
    if called == _PARAMETER:
        if not isinstance(arguments[0], Tensor):
            raise Refused("a parameter that is no tensor")
        return arguments[0]
    if called == _ORDERED:
        return dict(arguments[0]) if arguments else {}
    if called.module == "torch.jit._pickle":  # lists with a type
        return arguments[0] if arguments and type(arguments[0]) is list else Inert()
    if called.module.startswith("__torch__") or called in _INERT:
        return Inert()
    raise Refused(f"the archive calls {called.module}.{called.name}, which no tensor needs")


def _storage(pid, storage: Callable[[torch.dtype, str, int], Tensor]) -> Tensor:
    kind, name, key, _, count = pid
    if kind != "storage" or type(name) is not Name or name.name not in STORAGES or type(count) is not int:
        raise Refused(f"stored data of an unknown kind ({name!a:.60})")
    return storage(STORAGES[name.name], str(key), count)


def rebuild_tensor(numbers: Tensor, offset: int, size: tuple, stride: tuple) -> Tensor:
    """A view on stored numbers. Raises Refused where it would be larger than they are."""
    if not isinstance(numbers, Tensor):
        raise Refused("a tensor without stored numbers")
    if min((*size, *stride, offset), default=0) < 0:
        raise Refused(f"a tensor of shape {tuple(size)}, strides {tuple(stride)}, offset {offset}")
    if math.prod(size) > numbers.numel():  # a stride of 0 would make terabytes out of nothing
        raise Refused(f"a tensor of shape {tuple(size)} out of {numbers.numel()} stored numbers")
    return numbers.as_strided(size, stride, offset)  # checks bounds


_MOST_ATTRIBUTES, _DEEPEST = 200_000, 64


def tensors_below(value) -> dict[str, Tensor]:
    """The tensors of a scripted module by dotted name. Refused for modules that are nested without end."""
    tensors: dict[str, Tensor] = {}
    queue = [("", value, 0)]
    visited = 0
    while queue:
        name, value, depth = queue.pop()
        visited += 1
        if visited > _MOST_ATTRIBUTES or depth > _DEEPEST:
            raise Refused("modules nested without end")
        if isinstance(value, Tensor):
            tensors[name] = value
        elif type(value) is Inert and isinstance(value.state, Mapping):
            queue += [(f"{name}.{key}" if name else str(key), part, depth + 1) for key, part in value.state.items()]
    return tensors
