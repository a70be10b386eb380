"""DICOM headers that are damaged in ways that pydicom has errors of its own for."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from slidetriage.errors import SlideError
from slidetriage.wsi import dicom_series, open_slide
from slidetriage.wsi.dicom import mislabelled_ycbcr

GROUP_LENGTH, SYNTAX = (2, 0), (2, 16)


def element(tag: tuple[int, int], kind: bytes, value: bytes) -> bytes:
    """An element of explicit type, little-endian."""
    return struct.pack("<HH2sH", *tag, kind, len(value)) + value


SOUND = element(GROUP_LENGTH, b"UL", struct.pack("<L", 26))
DAMAGED = {
    "group length of five bytes": element(GROUP_LENGTH, b"UL", b"\0" * 5),
    "number of three bytes": SOUND + element((40, 16), b"US", b"\0" * 3),
    "text of no known characters": SOUND + element((8, 5), b"CS", b"\xff\xfe\\ISO 9999 IR 1"),
    "element without an end": SOUND + struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_headers_are_no_series_and_no_slide(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "slide.dcm"
    body = DAMAGED[name] + element(SYNTAX, b"UI", b"1.2.840.10008.1.2.1\0")
    path.write_bytes(bytes(128) + b"DICM" + body)
    assert dicom_series(path) is None
    assert not mislabelled_ycbcr(path)
    with pytest.raises(SlideError):
        open_slide(path)
    assert not caplog.records, "what pydicom says may name a patient"
    assert not recwarn.list
