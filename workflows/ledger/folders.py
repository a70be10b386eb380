"""Checks of one slide's folder: every byte against its manifest, and the files among themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import orjson

from slidetriage.workflows.identity import SCHEMA_VERSION

from .audit_lines import digest
from .events import Work
from .places import plain
from .states import Ending
from .stores import check_store

MANIFEST, RESULT = "manifest.json", "result.json"

VOUCHING = ("heatmap.zarr", "nuclei.zarr")
"""Images that say once more what made the result; there is one of them."""

KNOWN_SCHEMAS = (SCHEMA_VERSION,)

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
_REQUIRED = {"key": str, "state": str, "provenance": dict, "tiles": dict, "files": dict}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong in an output folder."""

    directory: str
    """Folder within the output folder; empty for the output folder itself."""
    file: str
    """File within that folder; empty where all of it is meant."""
    what: str
    mend: str


Told = tuple[Ending, Work]
"""What the audit log says of a result."""


def check_folder(folder: Path, told: Told | None) -> Iterator[Finding]:
    """Everything that is wrong with a slide's folder.

    Parameters
    ----------
    told
        What the audit log says of it last; None where it says nothing.
    """
    name = plain(folder.name)
    mend = f"Delete the folder {name} and run `slidetriage resume`."
    for file, what in _check(folder, told):
        yield Finding(name, plain(file), what, mend)


def _check(folder: Path, told: Told | None) -> Iterator[tuple[str, str]]:
    if folder.is_symlink():
        yield "", "this is a link, and no run makes any"
        return
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError as error:
        yield MANIFEST, f"there is no manifest that can be read ({error.strerror})"
        return
    manifest = _parse(content)
    if manifest is None:
        yield MANIFEST, "the manifest is no JSON object"
        return
    if manifest.get("schema_version") not in KNOWN_SCHEMAS:
        yield MANIFEST, f"its schema version {manifest.get('schema_version')!r} is not known here"
        return
    wrong = [name for name, kind in _REQUIRED.items() if not isinstance(manifest.get(name), kind)]
    if wrong:
        yield MANIFEST, f"the manifest lacks {', '.join(wrong)}"
        return
    if not _is_as_written(content, manifest):
        yield MANIFEST, "the manifest is not as it was written"
    changed = dict(_check_files(folder, manifest["files"]))
    yield from changed.items()
    yield from _check_stores(folder, changed)
    if RESULT not in changed:
        yield from _check_result(folder, manifest)
    yield from _check_provenance(folder, manifest, changed)
    if told is not None:
        yield from _check_told(manifest, content, *told)


def _check_files(folder: Path, expected: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Files that are missing, changed, too many, or no files."""
    found = set()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() and not path.is_symlink():
            continue
        found.add(name)
        if path.is_symlink() or not path.is_file():
            yield name, "this is no plain file"
        elif name == MANIFEST:
            continue
        elif name not in expected:
            yield name, "the manifest does not name this file"
        else:
            try:
                with path.open("rb") as file:
                    same = hashlib.file_digest(file, "sha256").hexdigest() == expected[name]
            except OSError as error:
                yield name, f"the file cannot be read ({error.strerror})"
                continue
            if not same:
                yield name, "the content is not what was written (sha256)"
    for name in sorted(expected.keys() - found):
        yield name, "the file is missing"


def _check_stores(folder: Path, changed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for store in sorted(folder.glob("*.zarr")):
        inside = [name for name in changed if name.startswith(f"{store.name}/")]
        if any(name.rpartition("/")[2] in _METADATA for name in inside):
            continue  # what the store holds cannot be known; that it is damaged was said
        for array, what in check_store(store):
            yield f"{store.name}/{array}".rstrip("/"), what


def _check_result(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where result.json says something else than the manifest."""
    try:
        result = _parse((folder / RESULT).read_bytes())
    except OSError:
        result = None
    if result is None:
        yield RESULT, "there is no result that can be read"
        return
    told, tiles = manifest["tiles"], result.get("tiles")
    tiles = tiles if isinstance(tiles, dict) else {}
    pairs = {
        "schema_version": (result.get("schema_version"), manifest["schema_version"]),
        "state": (result.get("state"), manifest["state"]),
        "tiles planned": (tiles.get("planned"), told.get("planned")),
        "tiles unreadable": (tiles.get("unreadable"), told.get("unreadable")),
        "slide_id": (
            result.get("slide_id"), _look(manifest, "provenance", "slide", "slide_id")
        ),
        "model": (
            _look(result, "model", "sha256"), _look(manifest, "provenance", "model", "identity")
        ),
    }  # fmt: skip
    for name, (ours, theirs) in pairs.items():
        if ours is None or ours != theirs:
            yield RESULT, f"{name} is {ours!r} here and {theirs!r} in the manifest"
    if not folder.name.startswith(str(result.get("slide_id"))):
        yield RESULT, "the folder has the name of another slide"


def _check_provenance(
    folder: Path, manifest: Mapping[str, Any], changed: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """An image says once more what made the result, and so vouches for the manifest."""
    if manifest["key"] != manifest["provenance"].get("key"):
        yield MANIFEST, "its key is not that of its provenance"
    places = (("zarr.json", ("attributes", "slidetriage")), (".zattrs", ("slidetriage",)))
    for image, (name, path) in product(VOUCHING, places):
        file = f"{image}/{name}"
        if file in manifest["files"] and file not in changed:
            attributes = _parse((folder / file).read_bytes())
            if _look(attributes, *path) != manifest["provenance"]:
                yield MANIFEST, f"its provenance is not that of {file}"


def _check_told(
    manifest: Mapping[str, Any], content: bytes, ending: Ending, work: Work
) -> Iterator[tuple[str, str]]:
    """Where the audit log says something else than the manifest."""
    pairs: dict[str, tuple[object, object]] = {
        "state": (manifest["state"], ending.state),
        "tiles planned": (manifest["tiles"].get("planned"), work.tiles),
        "tiles unreadable": (manifest["tiles"].get("unreadable"), work.unreadable),
    }
    if work.sha256 is not None:
        pairs["slide"] = (_look(manifest, "provenance", "slide", "sha256"), work.sha256)
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            yield MANIFEST, f"{name} is {ours!r} here and {theirs!r} in the audit log"
    if work.manifest_sha256 not in (None, digest(content)):
        yield MANIFEST, "the manifest is not the one that the audit log tells of (sha256)"


def _is_as_written(content: bytes, manifest: dict[str, Any]) -> bool:
    """Whether the manifest has the one form in which `write_json` writes it."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(manifest, option=options) == content


def _parse(content: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _look(value: Any, *path: str) -> Any:
    """What lies under these keys; None where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value
