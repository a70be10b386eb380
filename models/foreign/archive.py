"""The directory of a torch archive, which is a zip file, checked before anything is unpacked."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from dataclasses import dataclass

from slidetriage.errors import ModelError

MAX_RECORDS = 50_000
MAX_DIRECTORY_BYTES = 8 * 2**20
MAX_CODE_BYTES = 32 * 2**20

_MEND = "Fetch the file again from where it was published, or do not use it."

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "in torch's format of before 2020"),
    (b"\x80", "a bare pickle, as joblib and scikit-learn write them"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "compressed with gzip"),
    *((b"x" + level, "compressed with zlib, as joblib does") for level in (b"\x01", b"^", b"\x9c")),
    (b"x\xda", "compressed with zlib, as joblib does"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"BZh", "compressed with bzip2"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Archive:
    """A zip file whose directory has been checked."""

    data: bytes
    top: str
    """The one folder all records lie in."""
    sizes: dict[str, int]
    """Bytes of each record, by its name within the folder."""

    def read(self, name: str, *, where: str) -> bytes:
        """The bytes of a record; its size was checked when the directory was."""
        try:
            with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
                return archive.read(f"{self.top}/{name}")
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
            raise _refuse(where, f"{name} in it cannot be read ({error})") from error


def open_archive(data: bytes, *, where: str) -> Archive:
    """Check the directory of an archive written by torch.save or torch.jit.save.

    Everything must be stored as it is; only code, of at most 32 MiB together, may be compressed.
    So nothing in it unpacks to more than the file. Raises `ModelError`.
    """
    _check_start(data, where)
    _check_directory(data, where)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise _refuse(where, f"its directory is damaged ({error})") from error
    sizes: dict[str, int] = {}
    tops = set()
    for record in records:
        top, _, name = record.filename.partition("/")
        _check_name(record.filename, where)
        _check_record(record, name, len(data), where)
        if name in sizes:
            raise _refuse(where, f"it holds {name!r} twice")
        tops.add(top)
        sizes[name] = record.file_size
    if len(tops) != 1:
        raise _refuse(where, f"it holds {len(tops)} folders, not one")
    stored = sum(record.compress_size for record in records)
    code = sum(record.file_size for record in records if record.compress_type)
    if stored > len(data) or code > MAX_CODE_BYTES:
        raise _refuse(where, "its records claim more bytes than it can hold")
    return Archive(data, tops.pop(), sizes)


def _check_start(data: bytes, where: str) -> None:
    if data.startswith(b"PK\x03\x04"):
        return
    kind = next((kind for start, kind in _STARTS if data.startswith(start)), None)
    if data[257:262] == b"ustar":
        kind = "a tar archive, as torch wrote before 2017"
    if kind is None and data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        kind = "a safetensors file, which needs no such care: give it to load_encoder"
    raise ModelError(
        f"{where} is no archive of torch: it is {kind or 'of an unknown kind'}.",
        mend="Where it was made, load it and save its state_dict with safetensors.",
    )


def _check_directory(data: bytes, where: str) -> None:
    """Bound the directory by what the end of the file says of it, before it is read."""
    end = data[-22:]
    if len(end) < 22 or not end.startswith(b"PK\x05\x06"):
        raise _refuse(where, "it is cut short: a zip file's end is missing")
    records, size = struct.unpack("<HI", end[10:16])
    if records == 0xFFFF or size == 0xFFFFFFFF:
        offset = int.from_bytes(data[-34:-26], "little")
        wide = data[offset : offset + 56]
        if not data[-42:].startswith(b"PK\x06\x07") or not wide.startswith(b"PK\x06\x06"):
            raise _refuse(where, "the end of its directory is damaged")
        records, size = struct.unpack("<QQ", wide[32:48])
    if records > MAX_RECORDS or size > MAX_DIRECTORY_BYTES or size > len(data):
        raise _refuse(where, f"its directory claims {records:,} records in {size:,} bytes")


def _check_name(name: str, where: str) -> None:
    parts = name.split("/")
    odd = re.search(r"[\\\x00-\x1f:]", name) or name.startswith("/") or len(name) > 512
    if odd or len(parts) < 2 or not {"", ".", ".."}.isdisjoint(parts):
        kind = "a NumPy archive" if name.endswith(".npy") else "no archive of torch"
        raise _refuse(where, f"it is {kind}: it holds {name[:80]!r}")


def _check_record(record: zipfile.ZipInfo, name: str, length: int, where: str) -> None:
    if record.flag_bits & 0x1:
        raise _refuse(where, f"{name!r} in it is encrypted")
    if record.compress_type == zipfile.ZIP_DEFLATED and name.startswith("code/"):
        if record.file_size > MAX_CODE_BYTES:
            raise _refuse(where, f"{name!r} in it claims {record.file_size:,} bytes")
    elif record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
        raise _refuse(where, f"{name!r} in it is compressed, which torch never does")
    if record.header_offset + record.compress_size > length:
        raise _refuse(where, f"{name!r} in it claims more bytes than the file has")


def _refuse(where: str, problem: str) -> ModelError:
    return ModelError(f"{where} is refused: {problem}.", mend=_MEND)
