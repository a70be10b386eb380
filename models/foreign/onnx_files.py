"""Which further files an ONNX model draws on, read from its protobuf without the onnx library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from slidetriage.errors import ModelError

_MAX_FIELDS = 2_000_000
_MAX_DEPTH = 40

# Field numbers of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        **{5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
        **{22: "sparse", 23: "sparse"},
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}


def find_external_files(model: bytes, folder: Path, *, where: str) -> tuple[Path, ...]:
    """Files beside the model that hold tensors of it, sorted.

    Raises `ModelError` where the model is damaged, or names a file that is missing or not inside
    `folder`, links followed.
    """
    names = set()
    try:
        for kind, value in _walk(memoryview(model), "model", 0, [0]):
            if kind == "location":
                names.add(value)
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise ModelError(
            f"{where} is no ONNX model, or a damaged one ({error}).",
            mend="Fetch the file again from where it was published.",
        ) from error
    return tuple(_resolve(name, folder, where) for name in sorted(names))


def _resolve(name: str, folder: Path, where: str) -> Path:
    home = folder.resolve()
    odd = not name or "\x00" in name or "\\" in name or PurePosixPath(name).is_absolute()
    path = home if odd else (home / name).resolve()
    if odd or not path.is_relative_to(home) or not path.is_file():
        raise ModelError(
            f"{where} draws on {name[:80]!r}, which is no file inside its folder.",
            mend="Put the model and the file of its weights into one folder, under their names.",
        )
    return path


def _walk(data: memoryview, kind: str, depth: int, fields: list[int]) -> Iterator[tuple[str, str]]:
    if depth > _MAX_DEPTH:
        raise ValueError("it nests too deep")
    key = text = None
    for number, value in _read_fields(data, fields):
        if kind == "entry":
            if number == 1:
                key = bytes(value).decode()
            elif number == 2:
                text = bytes(value).decode()
        elif number in _MESSAGES[kind]:
            yield from _walk(value, _MESSAGES[kind][number], depth + 1, fields)
    if key == "location":
        yield "location", text or ""


def _read_fields(data: memoryview, fields: list[int]) -> Iterator[tuple[int, memoryview]]:
    """Length-delimited fields of a message; others are passed over."""
    place = 0
    while place < len(data):
        fields[0] += 1
        if fields[0] > _MAX_FIELDS:
            raise ValueError("it has too many fields")
        tag, place = _read_number(data, place)
        wire = tag & 7
        if wire == 0:
            _, place = _read_number(data, place)
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        elif wire == 2:
            size, place = _read_number(data, place)
            if place + size > len(data):
                raise ValueError("a field is longer than the file")
            yield tag >> 3, data[place : place + size]
            place += size
        else:
            raise ValueError(f"a field has the unknown type {wire}")
    if place > len(data):
        raise ValueError("a field is longer than the file")


def _read_number(data: memoryview, place: int) -> tuple[int, int]:
    """A variable-length integer, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is too long")
