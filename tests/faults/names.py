"""E: names and places of files that trip programs up; the slides themselves are good."""

from __future__ import annotations

import os
import shutil
from itertools import count
from pathlib import Path

from faults.painted import generic, means, paint
from faults.specimens import Specimen, done, rejected
from faults.tiff_parts import write_parts

_shifts = count()


def make(here: Path) -> list[Specimen]:
    """Every specimen of section E but those that may end the run."""
    return [*_odd(here), *_twins(here), *_long(here), *_reserved(here), *_elsewhere(here)]


def slide(path: Path) -> Path:
    """A small slide that differs from every other made here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    at = 2 * next(_shifts)
    image = paint()[200 + at : 500 + at, 200:600]
    return write_parts(path, generic(image, means(image)))


def _odd(here: Path) -> list[Specimen]:
    names = {
        (56, "quotes"): 'it\'s  not "quoted" `$HOME` & <b>.svs',
        (56, "unicode"): "ünï 中文 🔬.svs",
        (56, "right-to-left"): "שקופית ‮gvs.svs",
        (57, "newline"): "first\nsecond.svs",
        (57, "escape"): "red\x1b[31m\x07\r.svs",
    }
    found = [done(case, slide(here / name), variant=what) for (case, what), name in names.items()]
    return found


def make_undecodable(here: Path) -> list[Specimen]:
    """A name that is no UTF-8, which lists and logs may choke on."""
    return [done(58, slide(Path(os.fsdecode(os.fsencode(here) + b"/caf\xe9 \xff\xfe.svs"))))]


def _twins(here: Path) -> list[Specimen]:
    found = [
        done(59, slide(here / name), variant=what)
        for name, what in (
            ("e\u0301.svs", "decomposed"), ("\u00e9.svs", "composed"), ("A.svs", "upper"),
            ("a.svs", "lower"),
        )
    ]  # fmt: skip
    # The same content under names that only their case tells apart.
    upper = slide(here / "Case.svs")
    lower = Path(shutil.copy(upper, here / "case.svs"))
    found += [done(59, upper, variant="equal-upper"), done(59, lower, variant="equal-lower")]
    found += [
        done(60, slide(here / name), variant=what)
        for name, what in (
            ("one/same.svs", "one"), ("two/same.svs", "two"), ("one/same.tif", "suffix"),
        )
    ]  # fmt: skip
    first = slide(here / "one" / "copy.svs")
    second = Path(shutil.copy(first, here / "two" / "copy.svs"))
    return [*found, done(61, first, variant="first"), done(61, second, variant="second")]


def _long(here: Path) -> list[Specimen]:
    name = here / ("n" * 251 + ".svs")
    deep = _deep(here / "deep", 4090)
    return [
        done(62, slide(name), variant="name"),
        done(62, slide(deep), variant="path"),
    ]


def make_too_long(here: Path) -> list[Specimen]:
    """A path that no system call takes, which may end the run before it begins."""
    return [
        rejected(
            62, _deep(here / "beyond", 4300), "E_NOT_FOUND", "no such file|too long",
            "check the path|shorter", variant="too-long",
        )
    ]  # fmt: skip


def _deep(folder: Path, length: int) -> Path:
    """A path of so many bytes."""
    tail = "/deep.svs"
    while len(os.fsencode(folder)) + len(tail) + 201 < length:
        folder = folder / ("d" * 200)
    rest = length - len(os.fsencode(folder)) - len(tail) - 1
    return Path(f"{folder}/{'d' * rest}{tail}")


def _reserved(here: Path) -> list[Specimen]:
    names = {"device": "CON.svs", "dots": "x..svs", "dash": "-rf.svs", "hidden": ".hidden.svs"}
    return [done(63, slide(here / name), variant=what) for what, name in names.items()]


def _elsewhere(here: Path) -> list[Specimen]:
    outside = slide(here.parent / "outside" / "linked.svs")
    link = here / "link.svs"
    link.symlink_to(outside)
    climbing = slide(here / "climbing.svs")
    return [
        done(64, link),
        Specimen(65, climbing, "DONE", columns={"slide_id": "../../../climbed"}),
        Specimen(
            65,
            here / ".." / "no-such" / "climbing.svs",
            "REJECTED",
            ("E_NOT_FOUND",),
            ("no such file", "check the path"),
            "path",
            {"slide_id": "/etc/passwd"},
        ),
    ]
