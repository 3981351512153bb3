"""Pickles read without pickle: a small machine that knows tensors, containers and numbers, and can call nothing.

``torch.save`` and TorchScript describe their tensors in a pickle, and a pickle is a program. Here its operations are
walked through one by one (``pickletools`` only parses). A name in it never becomes a Python object: it stays a
name, and the few that describe tensors are answered by this file. Everything else is refused.

A few hundred bytes can also describe nested tuples with 2**45 ends. So nothing here hashes, compares or prints a
container out of a pickle, its operations are counted, and what comes out is small enough for others to do so.
"""

from __future__ import annotations

import io
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
_MOST_OPERATIONS = 4_000_000  # a tensor takes about 32: ten thousand parameters and their optimizer make 1.3 million
_MOST_TENSORS = 200_000


def read_pickle(data: bytes | io.BytesIO, storage: Callable[[torch.dtype, str, int], Tensor]):
    """What a pickle of tensors describes: dicts, lists, tuples, numbers, text, tensors, and ``Inert`` objects.

    ``storage(dtype, key, count)`` gives the numbers of a tensor. A stream is left behind the pickle's last byte.
    Raises Refused for anything that is none of these, or is nested or repeated without end, and the errors of a
    damaged file (ValueError, IndexError, KeyError, TypeError, …).
    """
    stack, marks, memo, tensors = [], [], {}, 0
    for number, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if number >= _MOST_OPERATIONS:
            raise Refused(f"its description has more than {_MOST_OPERATIONS} operations")
        code = operation.name
        if code in ("PROTO", "FRAME"):
            continue
        if code == "STOP":
            value = stack.pop()
            _refuse_endless(value)
            return value
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
            _dict(stack[-1])[_key(key)] = value
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
            tensors += isinstance(stack[-1], Tensor)
            if tensors > _MOST_TENSORS:
                raise Refused(f"it describes more than {_MOST_TENSORS} tensors")
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
        target.update(zip(map(_key, items[::2]), items[1::2], strict=True))
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


def _key(key):
    """A key that is hashed at once. Larger whole numbers could be chosen to have all the same hash."""
    if key is not None and type(key) not in (str, int, bool, float):
        raise Refused(f"the archive has a {type(key).__name__} as a key, which no tensor needs")
    if type(key) is int and not -(1 << 63) <= key < 1 << 64:
        raise Refused("the archive has a number of more than 64 bits as a key, which no tensor needs")
    return key


_DEEPEST, _LARGEST = 64, 1 << 23  # containers in each other; about what would be written, were all written out


def _refuse_endless(value) -> None:
    """Refused where containers lie in each other too deeply, or so often that written out they would not end."""
    queue, size = [((value,), 0)], 0
    while queue:
        container, depth = queue.pop()
        parts = (*container.keys(), *container.values()) if type(container) is dict else container
        size += 8 + len(parts) + sum(len(part) for part in parts if type(part) in (str, bytes)) // 64
        if depth > _DEEPEST or size > _LARGEST:
            raise Refused("containers nested without end")
        queue += [(part, depth + 1) for part in parts if type(part) in (dict, list, tuple)]


_TYPES = {str(dtype).removeprefix("torch.") for dtype in STORAGES.values()}
_TENSORS = (Name("torch._utils", "_rebuild_tensor_v2"), Name("torch._utils", "_rebuild_tensor"))
_PARAMETER = Name("torch._utils", "_rebuild_parameter")
_ORDERED = Name("collections", "OrderedDict")
_INERT = {Name("argparse", "Namespace"), Name("torch", "device"), Name("torch", "Size")}


def _known(module, name) -> Name:
    """The name itself, if it is one of those that describe tensors or what stands around them."""
    if type(module) is not str or type(name) is not str:
        raise Refused(f"the archive asks for a name that is a {type(name).__name__} in a {type(module).__name__}")
    known = Name(module, name)
    is_storage = known.module == "torch" and known.name in STORAGES
    is_dtype = known.module == "torch" and known.name in _TYPES
    if (
        known in (*_TENSORS, _PARAMETER, _ORDERED)
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
    if called in _TENSORS:
        return rebuild_tensor(*arguments[:4])
    if called == _PARAMETER:
        if not isinstance(arguments[0], Tensor):
            raise Refused("a parameter that is no tensor")
        return arguments[0]
    if called == _ORDERED:
        return _ordered(arguments[0]) if arguments else {}
    if called.module == "torch.jit._pickle":  # lists with a type
        return arguments[0] if arguments and type(arguments[0]) is list else Inert()
    if called.module.startswith("__torch__") or called in _INERT:
        return Inert()
    raise Refused(f"the archive calls {called.module}.{called.name}, which no tensor needs")


def _ordered(items) -> dict:
    if type(items) is dict:
        return dict(items)
    if type(items) is not list or any(type(item) not in (list, tuple) or len(item) != 2 for item in items):
        raise Refused("an ordered dict out of something else than pairs")
    return {_key(key): value for key, value in items}


def _storage(pid, storage: Callable[[torch.dtype, str, int], Tensor]) -> Tensor:
    """Five fields, in the format before torch 1.6 a sixth: nothing, or (its own key, offset, count) of a part."""
    if type(pid) is not tuple or len(pid) not in (5, 6):
        raise Refused(f"stored data of an unknown kind (a {type(pid).__name__})")
    kind, name, key, _, count = pid[:5]
    if type(kind) is not str or kind != "storage" or type(name) is not Name or name.name not in STORAGES:
        raise Refused(
            f"stored data of an unknown kind ({ascii(name)[:60] if type(name) is Name else type(name).__name__})"
        )
    if type(key) not in (str, int) or type(count) is not int or not 0 <= count < 1 << 63:
        raise Refused("stored data without a key and a count")
    numbers = storage(STORAGES[name.name], str(key), count)
    part = pid[5] if len(pid) == 6 else None
    if part is None:
        return numbers
    if type(part) is not tuple or len(part) != 3 or not _are_numbers(part[1:]) or min(part[1:]) < 0:
        raise Refused("a part of stored data that is none")
    return numbers.narrow(0, part[1], part[2])  # checks bounds


def _are_numbers(values) -> bool:
    return all(type(value) is int and abs(value) < 1 << 63 for value in values)


def rebuild_tensor(numbers: Tensor, offset: int, size: tuple, stride: tuple) -> Tensor:
    """A view on stored numbers. Raises Refused where it would be larger than they are."""
    if not isinstance(numbers, Tensor):
        raise Refused("a tensor without stored numbers")
    if any(type(values) not in (tuple, list) or len(values) > _DEEPEST for values in (size, stride)):
        raise Refused("a tensor without a shape and strides")
    if not _are_numbers((*size, *stride, offset)):
        raise Refused("a tensor whose shape, strides and offset are no numbers")
    if min((*size, *stride, offset)) < 0:
        raise Refused(f"a tensor of shape {tuple(size)}, strides {tuple(stride)}, offset {offset}")
    if math.prod(size) > numbers.numel():  # a stride of 0 would make terabytes out of nothing
        raise Refused(f"a tensor of shape {tuple(size)} out of {numbers.numel()} stored numbers")
    return numbers.as_strided(size, stride, numbers.storage_offset() + offset)  # checks bounds


_MOST_ATTRIBUTES, _LONGEST_NAME = 200_000, 400


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
        if len(name) > _LONGEST_NAME:
            raise Refused(f"a tensor with the name {name[:60]!a}…")
        if isinstance(value, Tensor):
            tensors[name] = value
        elif type(value) is Inert and isinstance(value.state, Mapping):
            queue += [(f"{name}.{key}" if name else str(key), part, depth + 1) for key, part in value.state.items()]
    return tensors
