"""What must be known of a DICOM slide beside what OpenSlide says of it."""

from __future__ import annotations

import struct
from pathlib import Path

DICOM_SUFFIXES = (".dcm", ".dicom")

_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_DAMAGE = (
    OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError,
    IndexError, OverflowError, RecursionError, MemoryError, struct.error,
)  # fmt: skip
"""What pydicom raises for damaged files, beside its own error."""

_HEADER_BYTES = 4 << 20
"""The first frame's JPEG header lies behind the offset table, 4 bytes a frame."""


def dicom_series(path: Path) -> str | None:
    """SeriesInstanceUID of a DICOM file; None where it is no DICOM file or states none."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        value = header.get("SeriesInstanceUID")
    except (InvalidDicomError, *_DAMAGE):
        return None
    return str(value) if value else None


def mislabelled_ycbcr(path: Path) -> bool:
    """Whether a DICOM file says its JPEG frames are RGB although they hold YCbCr.

    Some converters write PhotometricInterpretation RGB over ordinary JFIF frames. JFIF (ITU-T
    T.871, clause 7) is YCbCr by definition, so the frame is believed, not the tag; OpenSlide
    believes the tag, and tissue comes out salmon on turquoise.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    with path.open("rb") as file:
        try:
            tags = ["PhotometricInterpretation"]
            header = dcmread(file, stop_before_pixels=True, specific_tags=tags)
            syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
            stated = header.get("PhotometricInterpretation")
        except (InvalidDicomError, *_DAMAGE):
            return False
        if stated != "RGB" or syntax != _JPEG_BASELINE:
            return False
        data = file.read(_HEADER_BYTES)
    start = data.find(b"\xff\xd8\xff")
    return (
        start >= 0
        and data[start + 2 : start + 4] == b"\xff\xe0"
        and b"JFIF" in data[start : start + 12]
    )
