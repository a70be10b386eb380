"""The private mapping file: which slide has which number, the one place that knows its path.

Everything else of a run's record names slides by their number. A slide keeps its number for ever;
a line is added where it is asked for anew in another way, and the last line of a number holds.
"""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from slidetriage.errors import OutputError
from slidetriage.workflows.crash_points import crash_point
from slidetriage.workflows.sources import SlideRequest

from .appending import append, make_folder, open_to_append
from .audit_lines import damaged
from .places import PRIVATE, SLIDES

_FIELDS = frozenset(field.name for field in fields(SlideRequest)) - {"path", "row"}
_BYTES = "base64"
"""Key of an object that stands for text which is no Unicode."""
_AT_ONCE = 1 << 20
"""Bytes of new lines that are held back at most."""


class Registry:
    """The slides ever asked for, by their row; one run at a time may add to it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._requests: list[SlideRequest] = []
        self._rows: dict[str, int] = {}
        self._unwritten = bytearray()
        self._read()

    @classmethod
    def open(cls, folder: Path) -> Registry:
        """Begin or take up the mapping file; use it in a `with` statement, or close it.

        Parameters
        ----------
        folder
            The folder `run` of an output folder; made if missing, with `private` in it, which
            nobody but its owner may enter.

        Raises
        ------
        OutputError
            It cannot be written, a link stands at its place, or a line is damaged (E_LEDGER).
        """
        path = folder / PRIVATE / SLIDES
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        os.close(make_folder(folder, mode=0o755))
        private = make_folder(path.parent, mode=0o700)
        try:
            os.fchmod(private, 0o700)
            descriptor = open_to_append(path, mode=0o600, folder=private)
            try:
                os.fchmod(descriptor, 0o600)
                return cls(path, descriptor)
            except OSError:
                os.close(descriptor)
                raise
        except OutputError:
            raise
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            os.close(private)

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def requests(self) -> list[SlideRequest]:
        """The last request of each row, with absolute paths."""
        return list(self._requests)

    def add(self, request: SlideRequest) -> int:
        """The row of a slide: that of its path, or the next.

        On the disk after `sync` or `close`, and until then perhaps in memory only. Raises
        `OutputError` where it cannot be written.
        """
        path = request.path.absolute()
        row = self._rows.get(str(path), len(self._requests))
        request = replace(request, path=path, row=row)
        if row < len(self._requests) and self._requests[row] == request:
            return row
        self._unwritten += _encode(request, row) + b"\n"
        self._keep(row, request)
        if len(self._unwritten) >= _AT_ONCE:
            self._write()
        return row

    def sync(self) -> None:
        """Bring everything that was added to the disk."""
        self._write()
        crash_point("registry.written")
        try:
            os.fsync(self._descriptor)
            crash_point("registry.synced")
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def close(self) -> None:
        """Bring everything to the disk and let go; a second call does nothing."""
        if self._descriptor < 0:
            return
        try:
            self.sync()
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self) -> None:
        try:
            append(self._descriptor, bytes(self._unwritten))
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self._unwritten.clear()

    def _keep(self, row: int, request: SlideRequest) -> None:
        if row == len(self._requests):
            self._requests.append(request)
        else:
            self._requests[row] = request
        self._rows[str(request.path)] = row

    def _read(self) -> None:
        """Take up what is there; what a power cut left of the last line goes."""
        end = 0
        with open(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    os.ftruncate(self._descriptor, end)
                    return
                end += len(line)
                with suppress(ValueError, TypeError, KeyError, AttributeError):
                    row, request = _decode(line)
                    if 0 <= row <= len(self._requests):
                        self._keep(row, request)
                        continue
                raise damaged(self._path, f"line {number} cannot be read")


def _encode(request: SlideRequest, row: int) -> bytes:
    """A line by names of fields, so that fields may be added to requests."""
    record: dict[str, object] = {name: _pack(getattr(request, name)) for name in _FIELDS}
    record |= {"row": row, "path": _pack_bytes(os.fsencode(request.path))}
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)


def _decode(line: bytes) -> tuple[int, SlideRequest]:
    record = orjson.loads(line)
    row = record["row"]
    if type(row) is not int:
        raise TypeError("a row is a number")
    path = Path(os.fsdecode(_unpack_bytes(record["path"])))
    known: dict[str, Any] = {
        name: _unpack(value) for name, value in record.items() if name in _FIELDS
    }
    return row, SlideRequest(path=path, row=row, **known)


def _pack(value: object) -> object:
    """A value of a field as JSON; text that is no Unicode keeps every byte."""
    if isinstance(value, str):
        return _pack_bytes(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, tuple):
        return [_pack(inner) for inner in value]
    return value


def _unpack(value: object) -> object:
    if isinstance(value, dict):
        return _unpack_bytes(value).decode("utf-8", "surrogatepass")
    if isinstance(value, list):
        return tuple(_unpack(inner) for inner in value)
    return value


def _pack_bytes(content: bytes) -> object:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {_BYTES: base64.b64encode(content).decode()}


def _unpack_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return base64.b64decode(value[_BYTES], validate=True)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: the mapping file cannot be written ({error.strerror}).",
        mend="Check the disk and its rights, then run again.",
    )
