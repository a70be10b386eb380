"""Devices and choices: nonsense is refused, what the processor can do is read, records are JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slidetriage.errors import UsageError
from slidetriage.models import Device, RuntimeChoice
from slidetriage.models import precision as module
from slidetriage.models.precision import find_precision, has_bfloat16


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("fpu avx512f avx512_bf16 avx512vbmi", True),
        ("fpu amx_bf16 amx_tile", True),
        ("fpu avx2 avx512f avx512_vnni", False),
        ("fpu avx512_bf16_not_really", False),
        ("", False),
    ],
)
def test_bfloat16_is_read_from_the_flags(flags: str, wanted: bool, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nbugs\t\t: amx_bf16\nflags\t\t: {flags}\n\n")
    assert has_bfloat16(path) is wanted
    assert not has_bfloat16(tmp_path / "missing")


@pytest.mark.parametrize(("able", "wanted"), [(True, "bfloat16"), (False, "float32")])
def test_auto_follows_the_processor(
    able: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_bfloat16", lambda: able)
    assert find_precision(Device())[0] == wanted
    assert find_precision(Device(precision="float32"))[0] == "float32"
    assert find_precision(Device(precision="bfloat16"))[0] == wanted


@pytest.mark.parametrize(("able", "wanted"), [(True, "bfloat16"), (False, "float16")])
def test_auto_follows_the_gpu(able: bool, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.torch.cuda, "is_bf16_supported", lambda emulated: able)
    assert find_precision(Device("cuda:1"))[0] == wanted


@pytest.mark.parametrize(
    "wish",
    [
        {"precision": "float8"},
        {"precision": "float16"},
        {"name": "cuda", "runtime": "openvino"},
        {"threads": 0},
        {"batch_tiles": 0},
    ],
)
def test_nonsense_is_refused(wish: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Device(**wish)  # type: ignore[arg-type]  # that is the point


def test_record_is_json_with_two_digits() -> None:
    choice = RuntimeChoice("openvino", "float32", 32, 2, "as asked", 0.0123456, float("nan"))
    record = json.loads(json.dumps(choice.as_record(), allow_nan=False))
    assert record == {
        "name": "openvino",
        "precision": "float32",
        "batch_tiles": 32,
        "threads": 2,
        "reason": "as asked",
        "drift": 0.012,
        "score_drift": None,
    }
