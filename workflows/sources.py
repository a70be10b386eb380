"""Which slides were asked for: files, folders, globs and CSV manifests become requests."""

from __future__ import annotations

import csv
import errno
import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from slidetriage.errors import ScaleError, SlideNotReadable, SlideTriageError, UsageError
from slidetriage.wsi import DICOM_SUFFIXES, IMAGE_SUFFIXES, MppSource, dicom_series
from slidetriage.wsi.scale import parse_mpp

from .identity import slug
from .settings import Settings

SLIDE_SUFFIXES = (
    ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".czi", ".isyntax", ".svslide",
    *DICOM_SUFFIXES, *IMAGE_SUFFIXES,
)  # fmt: skip
"""What a folder is searched for; a file that is named is taken whatever its suffix."""

NAMELESS = "slide"
"""What a slide is called in place of its name where no name may be told."""

SIDECAR_SUFFIX = ".sha256"

_SIDECAR_BYTES = 1 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SlideRequest:
    """One slide as the user asked for it; nothing has been opened yet."""

    path: Path
    name: str
    """What the slide is called: the manifest's slide_id, or the file's stem."""
    mpp: float | None = None
    mpp_source: MppSource = "command line"
    patient_id: str | None = None
    problem: tuple[str, str] | None = None
    """Code and sentence where the request itself is bad, so that it still gets its row."""
    sha256: str | None = None
    """The slide's hash as the manifest states it: 64 hex digits in lower case."""
    priority: int = 0
    """Slides with a higher one go first."""
    stain: str | None = None
    """How the slide is stained, as the manifest says, such as "H&E"."""
    row: int | None = None
    """The slide's number in the private mapping file of the output folder."""


def public_name(request: SlideRequest, settings: Settings) -> str:
    """The name that goes into the slide's id, and so into every output."""
    return NAMELESS if settings.deidentify else request.name


def display_name(request: SlideRequest, settings: Settings) -> str:
    """What a slide is called where it has no id, because its content could not be hashed.

    >>> request = SlideRequest(Path("Doe.svs"), "Doe", row=12)
    >>> display_name(request, Settings()), display_name(request, Settings(deidentify=True))
    ('Doe', 'slide-row-000012')
    """
    if not settings.deidentify or request.row is None:
        return public_name(request, settings)
    return f"{NAMELESS}-row-{request.row:06d}"


def expected_hash(request: SlideRequest) -> str | None:
    """The sha256 the slide should have: of its manifest, or of a sidecar file beside it.

    The sidecar of a.svs is a.svs.sha256, as sha256sum writes it. Raises `SlideNotReadable`
    (E_HASH) where there is one that cannot be read or holds no hash of this slide.
    """
    if request.sha256 is not None:
        return request.sha256
    sidecar = request.path.with_name(f"{request.path.name}{SIDECAR_SUFFIX}")
    try:
        if not stat.S_ISREG(sidecar.stat().st_mode):
            raise OSError("it is no file")
        with sidecar.open("rb") as file:
            lines = file.read(_SIDECAR_BYTES).decode("utf-8", "surrogateescape").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EACCES) and not os.path.lexists(sidecar):
            return None  # there can be none, or none that may be seen
        raise SlideNotReadable(
            f"{sidecar.name}: the slide's hash cannot be read ({error.strerror or error}).",
            mend="Check the file beside the slide, or remove it.",
            code="E_HASH",
        ) from error
    return _parse_sha256(_line_for(request.path.name, lines), where=sidecar.name)


def _line_for(name: str, lines: list[str]) -> str:
    """The hash of the line about `name`, or of the only line where there is but one."""
    # A backslash before the hash says that the name is escaped.
    parts = [line.strip().lstrip("\\").partition(" ") for line in lines if line.strip()]
    about = [digest for digest, _, of in parts if of.lstrip(" *").rpartition("/")[2] == name]
    if not about and len(parts) == 1:
        about = [parts[0][0]]
    return about[0] if about else "no line about this file"


def find_requests(sources: Iterable[str | Path], *, mpp: float | None = None) -> list[SlideRequest]:
    """Every slide named by `sources`, once, in the order of their paths.

    Parameters
    ----------
    sources
        Files, folders (searched with their sub-folders), globs, or CSV manifests with a column
        `path` and, if wanted, `slide_id`, `mpp`, `patient_id`, `sha256`, `priority`, `stain`.
        Relative paths in a manifest start at the manifest.
    mpp
        um/px stated for all of them; a manifest's own value wins.

    Raises
    ------
    UsageError
        Nothing was named, a pattern fits nothing, or a manifest cannot be read.
    """
    requests: dict[str, SlideRequest] = {}
    for source in sources:
        for request in _expand(str(source), mpp):
            requests.setdefault(str(request.path.absolute()), request)
    if not requests:
        raise UsageError("No slides were given.", mend="Name files, folders or a CSV manifest.")
    ordered = sorted(requests.values(), key=lambda request: str(request.path))
    return _told_apart(list(_one_per_series(ordered)))


def _told_apart(requests: list[SlideRequest]) -> list[SlideRequest]:
    """Names that differ in case alone get a number: on some disks they would be one folder."""
    spellings: dict[str, list[str]] = {}
    for request in requests:
        known = spellings.setdefault(slug(request.name).casefold(), [])
        if slug(request.name) not in known:
            known.append(slug(request.name))
    found = []
    for request in requests:
        place = spellings[slug(request.name).casefold()].index(slug(request.name))
        found.append(replace(request, name=f"{request.name}-{place + 1}") if place else request)
    return found


def _expand(source: str, mpp: float | None) -> Iterator[SlideRequest]:
    path = Path(source)
    if path.suffix.lower() == ".csv":
        yield from read_manifest(path, mpp=mpp)
    elif _is_folder(path):
        found = find_slides(path, mpp=mpp)
        if not found and path.suffix.lower() in SLIDE_SUFFIXES:
            found = [SlideRequest(path, path.stem, mpp)]  # called as a slide, so it gets a row
        if not found:
            raise UsageError(
                f"{source}: the folder holds no slides.",
                mend=f"Slides end in {', '.join(SLIDE_SUFFIXES)}; name other files one by one.",
            )
        yield from found
    elif glob.has_magic(source) and not _exists(path):
        matches = sorted(glob.glob(source, recursive=True))
        if not matches:
            raise UsageError(f"{source}: the pattern fits no file.")
        yield from (SlideRequest(Path(m), Path(m).stem, mpp) for m in matches)
    else:
        yield SlideRequest(path, path.stem, mpp)


def find_slides(folder: Path, *, mpp: float | None = None) -> list[SlideRequest]:
    """The slides in a folder and its sub-folders, by their suffixes; results of runs are none."""
    outputs = [mark.parents[1] for mark in folder.rglob("audit.jsonl") if mark.parent.name == "run"]
    return [
        SlideRequest(path, path.stem, mpp)
        for path in folder.rglob("*")
        if path.suffix.lower() in SLIDE_SUFFIXES
        and not any(path.is_relative_to(out) for out in outputs)
        and not (_is_folder(path) and _holds_slides(path))
    ]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _is_folder(path: Path) -> bool:
    """Whether it is one; what cannot be told is a slide's path, which gets its row."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _holds_slides(folder: Path) -> bool:
    return any(path.suffix.lower() in SLIDE_SUFFIXES for path in folder.rglob("*"))


def read_manifest(path: Path, *, mpp: float | None = None) -> list[SlideRequest]:
    """The rows of a CSV manifest.

    A row whose mpp, sha256 or priority makes no sense keeps its place and carries the problem.
    Raises `UsageError` where the file cannot be read or has no column `path`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = table.fieldnames or []
            if "path" not in columns:
                raise UsageError(
                    f"{path}: the manifest has no column 'path' (it has: {', '.join(columns)}).",
                    mend="Its first line must name the columns: path, slide_id, mpp, patient_id, "
                    "sha256, priority, stain.",
                )
            return [
                _request(row, path.parent, mpp, table.line_num)
                for row in table
                if (row["path"] or "").strip()
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: the manifest cannot be read: {error}.") from error


def _request(row: dict[str, str], folder: Path, mpp: float | None, line: int) -> SlideRequest:
    slide = folder / row["path"].strip()
    name = (row.get("slide_id") or "").strip() or slide.stem
    patient = (row.get("patient_id") or "").strip() or None
    stain = (row.get("stain") or "").strip() or None
    try:
        # Neither the manifest's name nor what the cell holds is told: it may be a patient's name.
        where = f"line {line} of the manifest, {name}"
        stated = _parse_mpp(row.get("mpp"), where=where)
        digest = _parse_sha256(row.get("sha256"), where=where)
        priority = _parse_priority(row.get("priority"), where=where)
    except SlideTriageError as error:
        problem = (error.code, str(error))
        return SlideRequest(slide, name, patient_id=patient, problem=problem)
    source: MppSource = "command line" if stated is None else "manifest"
    used = mpp if stated is None else stated
    return SlideRequest(
        slide, name, used, source,
        patient_id=patient, sha256=digest, priority=priority, stain=stain,
    )  # fmt: skip


def _parse_mpp(text: str | None, *, where: str) -> float | None:
    try:
        return parse_mpp(text, where=where)
    except ScaleError as error:
        what = f"{where}: the mpp is not a number."
        raise ScaleError(what, mend=error.mend, code=error.code) from None


def _parse_sha256(text: str | None, *, where: str) -> str | None:
    """A hash from a manifest's cell or a sidecar; None where there is none."""
    if text is None or not text.strip():
        return None
    if _SHA256.fullmatch(text.strip()) is None:
        raise SlideNotReadable(
            f"{where}: the sha256 stated is none.",
            mend="Write its 64 hex digits, as sha256sum prints them.",
            code="E_HASH",
        )
    return text.strip().lower()


def _parse_priority(text: str | None, *, where: str) -> int:
    if text is None or not text.strip():
        return 0
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"{where}: the priority is no whole number.",
            mend="Write a number such as 5; slides with a higher one go first.",
        ) from None


def _one_per_series(requests: list[SlideRequest]) -> Iterator[SlideRequest]:
    """A DICOM slide is many files; the first of each series in a folder stands for it."""
    seen: set[tuple[Path, str]] = set()
    for request in requests:
        if request.path.suffix.lower() in DICOM_SUFFIXES:
            series = dicom_series(request.path)
            if series is not None:
                key = (request.path.absolute().parent, series)
                if key in seen:
                    continue
                seen.add(key)
        yield request
