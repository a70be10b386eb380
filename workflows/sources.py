"""Which slides were asked for: files, folders, globs and CSV manifests become requests."""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from slidetriage.errors import SlideTriageError, UsageError
from slidetriage.wsi import DICOM_SUFFIXES, IMAGE_SUFFIXES, MppSource, dicom_series
from slidetriage.wsi.scale import parse_mpp

SLIDE_SUFFIXES = (
    ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".czi", ".isyntax", ".svslide",
    *DICOM_SUFFIXES, *IMAGE_SUFFIXES,
)  # fmt: skip
"""What a folder is searched for; a file that is named is taken whatever its suffix."""


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


def find_requests(sources: Iterable[str | Path], *, mpp: float | None = None) -> list[SlideRequest]:
    """Every slide named by `sources`, once, in the order of their paths.

    Parameters
    ----------
    sources
        Files, folders (searched with their sub-folders), globs, or CSV manifests with a column
        `path` and, if wanted, `slide_id`, `mpp`, `patient_id`. Relative paths in a manifest start
        at the manifest.
    mpp
        um/px stated for all of them; a manifest's own value wins.

    Raises
    ------
    UsageError
        Nothing was named, a pattern fits nothing, or a manifest cannot be read.
    """
    requests: dict[Path, SlideRequest] = {}
    for source in sources:
        for request in _expand(str(source), mpp):
            requests.setdefault(request.path.absolute(), request)
    if not requests:
        raise UsageError("No slides were given.", mend="Name files, folders or a CSV manifest.")
    ordered = sorted(requests.values(), key=lambda request: str(request.path))
    return list(_one_per_series(ordered))


def _expand(source: str, mpp: float | None) -> Iterator[SlideRequest]:
    path = Path(source)
    if path.suffix.lower() == ".csv":
        yield from read_manifest(path, mpp=mpp)
    elif path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix.lower() in SLIDE_SUFFIXES and p.is_file()]
        if not found:
            raise UsageError(
                f"{source}: the folder holds no slides.",
                mend=f"Slides end in {', '.join(SLIDE_SUFFIXES)}; name other files one by one.",
            )
        yield from (SlideRequest(p, p.stem, mpp) for p in found)
    elif glob.has_magic(source) and not path.exists():
        matches = sorted(glob.glob(source, recursive=True))
        if not matches:
            raise UsageError(f"{source}: the pattern fits no file.")
        yield from (SlideRequest(Path(m), Path(m).stem, mpp) for m in matches)
    else:
        yield SlideRequest(path, path.stem, mpp)


def read_manifest(path: Path, *, mpp: float | None = None) -> list[SlideRequest]:
    """The rows of a CSV manifest.

    A row whose mpp is no number keeps its place and carries the problem. Raises `UsageError`
    where the file cannot be read or has no column `path`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = table.fieldnames or []
            if "path" not in columns:
                raise UsageError(
                    f"{path}: the manifest has no column 'path' (it has: {', '.join(columns)}).",
                    mend="Its first line must name the columns: path, slide_id, mpp, patient_id.",
                )
            return [_request(row, path, mpp) for row in table if (row["path"] or "").strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: the manifest cannot be read: {error}.") from error


def _request(row: dict[str, str], manifest: Path, mpp: float | None) -> SlideRequest:
    slide = manifest.parent / row["path"].strip()
    name = (row.get("slide_id") or "").strip() or slide.stem
    patient = (row.get("patient_id") or "").strip() or None
    try:
        stated = parse_mpp(row.get("mpp"), where=f"{manifest.name}, {name}")
    except SlideTriageError as error:
        problem = (error.code, str(error))
        return SlideRequest(slide, name, patient_id=patient, problem=problem)
    if stated is None:
        return SlideRequest(slide, name, mpp, "command line", patient)
    return SlideRequest(slide, name, stated, "manifest", patient)


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
