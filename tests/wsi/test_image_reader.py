"""Plain images that are damaged are said to be, whatever Pillow trips over."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from PIL import Image

from slidetriage.errors import PixelsUnreadable, SlideNotReadable
from slidetriage.wsi import Box, open_reader, open_slide

ROWS_PER_STRIP, STRIP_OFFSETS = 278, 273
FLOAT, RATIONAL = 11, 5


def retype(path: Path, tag: int, kind: int) -> None:
    """Change the type of a tag of the first directory; little-endian, as Pillow writes."""
    content = bytearray(path.read_bytes())
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, entry) == (tag,):
            struct.pack_into("<H", content, entry + 2, kind)
            path.write_bytes(content)
            return
    raise AssertionError(f"no tag {tag}")


@pytest.mark.parametrize("tag", [ROWS_PER_STRIP, STRIP_OFFSETS])
@pytest.mark.parametrize("kind", [FLOAT, RATIONAL])
def test_numbers_of_a_wrong_kind_are_damage(tmp_path: Path, tag: int, kind: int) -> None:
    path = tmp_path / "plain.tif"
    Image.new("RGB", (300, 200), (200, 100, 150)).save(path)
    retype(path, tag, kind)
    with pytest.raises((SlideNotReadable, PixelsUnreadable)) as caught:
        open_reader(open_slide(path, mpp=0.5)).read(Box(0, 0, 300, 200), 75, 50)
    assert "plain.tif" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
