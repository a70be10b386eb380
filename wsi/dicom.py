"""What must be known of a DICOM slide beside what OpenSlide says of it."""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

DICOM_SUFFIXES = (".dcm", ".dicom")

_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_DAMAGE = (
    OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
    RuntimeError, MemoryError, struct.error,
)  # fmt: skip
"""What pydicom raises for damaged files, beside its own errors."""

_HEADER_BYTES = 4 << 20
"""The first frame's JPEG header lies behind the offset table, 4 bytes a frame."""


def dicom_series(path: Path) -> str | None:
    """SeriesInstanceUID of a DICOM file; None where it is no DICOM file or states none."""
    with suppress(OSError), path.open("rb") as file:
        header = _read_header(file, ["SeriesInstanceUID"])
        return header.get("SeriesInstanceUID") if header else None
    return None


def mislabelled_ycbcr(path: Path) -> bool:
    """Whether a DICOM file says its JPEG frames are RGB although they hold YCbCr.

    Some converters write PhotometricInterpretation RGB over ordinary JFIF frames. JFIF (ITU-T
    T.871, clause 7) is YCbCr by definition, so the frame is believed, not the tag; OpenSlide
    believes the tag, and tissue comes out salmon on turquoise.
    """
    with path.open("rb") as file:
        header = _read_header(file, ["PhotometricInterpretation"])
        if header is None:
            return False
        stated, syntax = header.get("PhotometricInterpretation"), header.get("TransferSyntaxUID")
        if stated != "RGB" or syntax != _JPEG_BASELINE:
            return False
        data = file.read(_HEADER_BYTES)
    start = data.find(b"\xff\xd8\xff")
    return (
        start >= 0
        and data[start + 2 : start + 4] == b"\xff\xe0"
        and b"JFIF" in data[start : start + 12]
    )


def _read_header(file: BinaryIO, tags: list[str]) -> dict[str, str] | None:
    """Those of the tags, and TransferSyntaxUID, that are there; None for no or a damaged file."""
    from pydicom import dcmread
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        with _unheard():
            header = dcmread(file, stop_before_pixels=True, specific_tags=tags)
            values = [(tag, header.get(tag)) for tag in tags]
            values.append(("TransferSyntaxUID", header.file_meta.get("TransferSyntaxUID")))
            return {tag: str(value) for tag, value in values if value}
    except (InvalidDicomError, BytesLengthException, *_DAMAGE):
        return None


@contextmanager
def _unheard() -> Iterator[None]:
    """What pydicom says of damage quotes what it found there, which may be a patient's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = logging.getLogger("pydicom")
        before, log.disabled = log.disabled, True
        try:
            yield
        finally:
            log.disabled = before
