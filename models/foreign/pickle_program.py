"""What a torch pickle would build, found by walking its opcodes; nothing in it is called.

A pickle is a program for a small stack machine. The few instructions that torch.save writes for
dicts of tensors are followed here with plain values in place of objects; any other instruction,
and any name that is not one of `_KINDS` or `_STORAGE_BYTES`, is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from slidetriage.errors import ModelError

MAX_OPCODES = 1_000_000
MAX_PROGRAM_BYTES = 8 * 2**20

_STORAGE_BYTES = {
    "torch DoubleStorage": 8,
    "torch FloatStorage": 4,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch LongStorage": 8,
    "torch IntStorage": 4,
    "torch ShortStorage": 2,
    "torch CharStorage": 1,
    "torch ByteStorage": 1,
    "torch BoolStorage": 1,
}
_ORDERED = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_KINDS = frozenset({_ORDERED, _TENSOR, _PARAMETER})

_VALUES = frozenset(
    [
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINUNICODE",
        "NEWTRUE",
        "NEWFALSE",
        "NONE",
    ]
)
_WORDS: dict[str, object] = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None}


class StorageClaim(NamedTuple):
    """A block of numbers that the archive is said to hold."""

    key: str
    item_bytes: int
    numbers: int


class TensorClaim(NamedTuple):
    """A view of a storage."""

    storage: StorageClaim
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def fits(self) -> bool:
        """Whether the view stays in its storage and repeats none of it."""
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > 16:
            return False
        if any(type(number) is not int or number < 0 for number in numbers):
            return False
        count, last = 1, self.offset
        for size, stride in zip(self.shape, self.strides, strict=True):
            count *= size
            last += (size - 1) * stride
        return count == 0 or (count <= self.storage.numbers and last < self.storage.numbers)


class _Name(str):
    """A name that a pickle would import."""

    __slots__ = ()


class _Mark:
    """Where a list of items on the stack begins."""


def follow_program(program: bytes, *, where: str) -> object:
    """Nested dicts, lists and plain values that the program builds, `TensorClaim` for tensors.

    Raises `ModelError` that names what is not allowed.
    """
    if len(program) > MAX_PROGRAM_BYTES:
        raise _refuse(where, f"its pickle has {len(program):,} bytes")
    machine = _Machine(where)
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if number >= MAX_OPCODES:
                raise _refuse(where, f"its pickle has more than {MAX_OPCODES:,} instructions")
            machine.step(opcode.name, argument)
        (result,) = machine.stack
    except ModelError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise _refuse(where, f"its pickle is damaged ({error})") from error
    return result


@dataclass(slots=True)
class _Machine:
    where: str
    stack: list[object] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)

    def step(self, name: str, argument: object) -> None:
        if name in _VALUES:
            self.stack.append(_WORDS.get(name, argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[cast(int, argument)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[cast(int, argument)])
        elif name == "GLOBAL":
            self.stack.append(self._allow(str(argument)))
        elif name in ("PROTO", "STOP"):
            if name == "PROTO" and argument != 2:
                raise _refuse(self.where, f"its pickle is of protocol {argument}, not 2")
        elif name in _STEPS:
            _STEPS[name](self)
        else:
            raise _refuse(self.where, f"its pickle holds the instruction {name}")

    def pop_items(self) -> list[object]:
        """What lies above the last mark."""
        for place in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[place], _Mark):
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise ValueError("a mark is missing")

    def pop_some(self, count: int) -> list[object]:
        """The topmost `count` values."""
        items = self.stack[-count:]
        if len(items) < count:
            raise ValueError("its stack is empty")
        del self.stack[-count:]
        return items

    def load_storage(self) -> None:
        """BINPERSID: a storage, by what torch says of it."""
        (claim,) = self.pop_some(1)
        kind, name, key, _, count = cast(tuple[object, ...], claim)
        if kind != "storage" or name not in _STORAGE_BYTES or type(key) is not str:
            raise ValueError(f"{str(claim)[:60]} is no storage")
        if type(count) is not int or count < 0:
            raise ValueError("a storage has an impossible size")
        self.stack.append(StorageClaim(key, _STORAGE_BYTES[name], count))

    def call(self) -> None:
        """REDUCE: a call of one of the few functions that build tensors."""
        name, arguments = self.pop_some(2)
        given = cast(tuple[object, ...], arguments)
        if name == _ORDERED and given == ():
            self.stack.append({})
        elif name == _TENSOR:
            storage, offset, shape, strides = given[:4]
            if not isinstance(storage, StorageClaim):
                raise ValueError("a tensor lacks a storage")
            self.stack.append(
                TensorClaim(
                    storage,
                    cast(int, offset),
                    tuple(cast(tuple[int, ...], shape)),
                    tuple(cast(tuple[int, ...], strides)),
                )
            )
        elif name == _PARAMETER and isinstance(given[0], TensorClaim):
            self.stack.append(given[0])
        else:
            raise ValueError(f"a call of {str(name)[:60]!r} that torch.save does not write")

    def set_items(self, items: list[object]) -> None:
        """SETITEM and SETITEMS: keys and values in turn."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items for what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                raise ValueError("a key is neither text nor number")
            target[key] = value

    def append_items(self, items: list[object]) -> None:
        """APPEND and APPENDS."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("items for what is no list")
        target.extend(items)

    def drop_state(self) -> None:
        """BUILD: state of an ordered dict, where torch notes versions of layers."""
        target, state = self.pop_some(2)
        if not isinstance(target, dict) or not isinstance(state, dict):
            raise ValueError("state for what is no ordered dict")
        self.stack.append(target)

    def _allow(self, name: str) -> _Name:
        if name not in _KINDS and name not in _STORAGE_BYTES:
            raise ModelError(
                f"{self.where} is refused: it would import {name.replace(' ', '.')[:80]!r}, which "
                "is no part of a table of tensors.",
                mend="It may hold more than weights, or an attack. Where it was made, save its "
                "state_dict alone, with safetensors.",
            )
        return _Name(name)


_STEPS: dict[str, Callable[[_Machine], None]] = {
    "MARK": lambda m: m.stack.append(_Mark()),
    "EMPTY_DICT": lambda m: m.stack.append({}),
    "EMPTY_LIST": lambda m: m.stack.append([]),
    "EMPTY_TUPLE": lambda m: m.stack.append(()),
    "TUPLE": lambda m: m.stack.append(tuple(m.pop_items())),
    "TUPLE1": lambda m: m.stack.append(tuple(m.pop_some(1))),
    "TUPLE2": lambda m: m.stack.append(tuple(m.pop_some(2))),
    "TUPLE3": lambda m: m.stack.append(tuple(m.pop_some(3))),
    "SETITEM": lambda m: m.set_items(m.pop_some(2)),
    "SETITEMS": lambda m: m.set_items(m.pop_items()),
    "APPEND": lambda m: m.append_items(m.pop_some(1)),
    "APPENDS": lambda m: m.append_items(m.pop_items()),
    "BINPERSID": _Machine.load_storage,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.drop_state,
}


def _refuse(where: str, problem: str) -> ModelError:
    return ModelError(
        f"{where} is refused: {problem}.",
        mend="Where it was made, load it and save its state_dict with safetensors.",
    )
