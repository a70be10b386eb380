"""What must be known of a DICOM slide beside what OpenSlide says of it."""

from __future__ import annotations

from pathlib import Path

DICOM_SUFFIXES = (".dcm", ".dicom")

_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_HEADER_BYTES = 4 << 20
"""The first frame's JPEG header lies behind the offset table, 4 bytes a frame."""


def dicom_series(path: Path) -> str | None:
    """SeriesInstanceUID of a DICOM file; None where it is no DICOM file or states none."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    except (InvalidDicomError, OSError):
        return None
    value = header.get("SeriesInstanceUID")
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
        except InvalidDicomError:
            return False
        syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
        if header.get("PhotometricInterpretation") != "RGB" or syntax != _JPEG_BASELINE:
            return False
        data = file.read(_HEADER_BYTES)
    start = data.find(b"\xff\xd8\xff")
    return (
        start >= 0
        and data[start + 2 : start + 4] == b"\xff\xe0"
        and b"JFIF" in data[start : start + 12]
    )
