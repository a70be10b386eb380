"""Files that attack whoever opens them, for tests; each leaves a canary file if it succeeds."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import torch


class Touch:
    """Pickles to a call of os.system."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.canary}",)


class Evaluate(Touch):
    """Pickles to a call of eval."""

    def __reduce__(self) -> tuple[object, ...]:
        return eval, (f"open({str(self.canary)!r}, 'w').close()",)


class Import(Touch):
    """Pickles to a call through torch's own namespace."""

    def __reduce__(self) -> tuple[object, ...]:
        return torch.hub.load, ("owner/name", "model")


def save(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def archive(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as target:
        warnings.simplefilter("ignore", UserWarning)  # of records that are there twice
        for name, data in records.items():
            target.writestr(name, data)
    return buffer.getvalue()


def program(body: bytes) -> bytes:
    return archive({"m/data.pkl": b"\x80\x02" + body + b".", "m/version": b"3\n"})


def claim(count: int, *, held: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """A file that says it holds `count` floats, and holds `held` bytes."""

    def number(value: int) -> bytes:
        return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(count) + b"tQ"
    tensor += b"K\x00" + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
    body = b"\x80\x02}" + text("weight") + tensor + b"s."
    return archive({"m/data.pkl": body, "m/data/0": bytes(held), "m/version": b"3\n"})


def _doubled(depth: int) -> dict[str, object]:
    value: dict[str, object] = {"w": torch.zeros(1)}
    for _ in range(depth):
        value = {"a": value, "b": value}
    return value


def _cyclic() -> dict[str, object]:
    value: dict[str, object] = {"w": torch.zeros(1)}
    value["again"] = value
    return value


def _numpy(canary: Path, *, compressed: bool) -> bytes:
    buffer = io.BytesIO()
    array = np.array([Touch(canary)], dtype=object)
    if compressed:
        np.savez(buffer, weight=array)
    else:
        np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _joblib(canary: Path, compress: int) -> bytes:
    buffer = io.BytesIO()
    joblib.dump({"weight": Touch(canary)}, buffer, compress=compress)
    return buffer.getvalue()


def _tar(canary: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        data = pickle.dumps(Touch(canary))
        entry = tarfile.TarInfo("../pickle")
        entry.size = len(data)
        target.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _crowded(records: int) -> bytes:
    data = bytearray(save({"w": torch.zeros(3)}))
    if data[-42:-38] == b"PK\x06\x07":
        place = int.from_bytes(data[-34:-26], "little")
        data[place + 32 : place + 40] = records.to_bytes(8, "little")
    data[-12:-10] = b"\xff\xff"
    data[-14:-12] = b"\xff\xff"
    return bytes(data)


def _twice(canary: Path) -> bytes:
    buffer = io.BytesIO(save({"w": torch.zeros(3)}))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as target:
        warnings.simplefilter("ignore", UserWarning)
        target.writestr("archive/data.pkl", pickle.dumps(Touch(canary), protocol=2))
    return buffer.getvalue()


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "os.system": (lambda c: save({"w": Touch(c)}), "would import"),
    "eval": (lambda c: save({"w": Evaluate(c)}), "would import"),
    "torch's own": (lambda c: save({"w": Import(c)}), "would import 'torch.hub.load'"),
    "nested": (
        lambda c: save({"w": torch.ones(2), "more": {"deep": [{"x": Touch(c)}]}}),
        "would import",
    ),
    "whole module": (lambda c: save(torch.nn.Linear(2, 2)), "would import 'torch.nn.modules"),
    "legacy torch": (
        lambda c: save({"w": Touch(c)}, _use_new_zipfile_serialization=False),
        "torch's format of before 2020",
    ),
    "bare pickle": (lambda c: pickle.dumps(Touch(c)), "a bare pickle"),
    "protocol 4": (lambda c: save({"w": torch.ones(1)}, pickle_protocol=4), "protocol 4"),
    "tar": (_tar, "tar archive"),
    "traversal": (
        lambda c: archive({"../m/data.pkl": pickle.dumps(Touch(c), protocol=2)}),
        "no archive of torch",
    ),
    "absolute path": (lambda c: archive({f"{c}": b"x"}), "no archive of torch"),
    "zip bomb": (
        lambda c: archive({"m/data.pkl": bytes(64 * 2**20)}, zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "bomb called code": (
        lambda c: archive({"m/code/x.py": bytes(64 * 2**20)}, zipfile.ZIP_DEFLATED),
        "claims 67,108,864 bytes",
    ),
    "crowd": (lambda c: _crowded(2**40), "claims 1,099,511,627,776 records"),
    "twice": (_twice, "twice"),
    "huge storage": (
        lambda c: claim(2**40, held=16, shape=(2**40,), strides=(1,)),
        "claims 1,099,511,627,776 numbers",
    ),
    "storage a little short": (
        lambda c: claim(5, held=16, shape=(5,), strides=(1,)),
        "holds 16 bytes",
    ),
    "view beyond": (lambda c: claim(4, held=16, shape=(4,), strides=(2,)), "claims 4 numbers"),
    "negative stride": (lambda c: claim(4, held=16, shape=(4,), strides=(-1,)), "claims"),
    "one number a trillion times": (
        lambda c: save({"w": torch.zeros(1).expand(2**40)}),
        "claims 1 numbers",
    ),
    "doubled": (lambda c: save(_doubled(30)), "nests too deep"),
    "cyclic": (lambda c: save(_cyclic()), "nests too deep"),
    "storm": (lambda c: program(b"N" * 2**21), "more than 1,000,000 instructions"),
    "long": (lambda c: program(b"N" * 2**24), "its pickle has 16,777,"),
    "stack underflow": (lambda c: program(b"R"), "damaged"),
    "no mark": (lambda c: program(b"t"), "damaged"),
    "extension": (lambda c: program(b"\x82\x01"), "damaged|instruction"),
    "truncated": (lambda c: save({"w": torch.zeros(4096)})[:9000], "cut short"),
    "npy": (lambda c: _numpy(c, compressed=False), "a NumPy array"),
    "npz": (lambda c: _numpy(c, compressed=True), "a NumPy archive"),
    "joblib": (lambda c: _joblib(c, 0), "a bare pickle"),
    "joblib zlib": (lambda c: _joblib(c, 3), "compressed with zlib"),
    "empty": (lambda c: b"", "unknown kind"),
    "html": (lambda c: b"<!doctype html><title>Log in</title>", "unknown kind"),
}
