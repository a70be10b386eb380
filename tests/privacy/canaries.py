"""Slides that carry 40 made-up identities wherever a file, a name or a table can carry one."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import tifffile
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tiny_slides import zero_tiles

APERIO = ("Filename", "Title", "User", "Date", "Time", "Barcode", "ScanScope ID")
TAGS = {
    "Artist": 315, "HostComputer": 316, "DocumentName": 269, "Software": 305,
    "Copyright": 33432, "XMP": 700, "NDPI Reference": 65427,
}  # fmt: skip
OME = ("image name", "experimenter", "annotation", "acquisition", "scale")
DICOM = (
    "PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "InstitutionName",
    "OperatorsName", "ContainerIdentifier", "SpecimenIdentifier", "BarcodeValue", "private tag",
)  # fmt: skip
NAMES = ("file of a good slide", "file of a bad slide", "file that is missing")
OTHERS = (
    "parent folder", "grandparent folder", "sidecar", "manifest file", "manifest notes",
    "manifest patient", "manifest mpp", "MRN",
)  # fmt: skip

PLACES = (
    *(f"aperio {field}" for field in APERIO),
    *(f"tiff {name}" for name in TAGS),
    *(f"ome {name}" for name in OME),
    *(f"dicom {name}" for name in DICOM),
    *NAMES,
    *OTHERS,
)

TOLD_BY_DEFAULT = frozenset(NAMES)
"""What a run that is not deidentified may say."""

PATTERN_CELLS = 10


@dataclass(frozen=True, slots=True)
class Canaries:
    """A token for each place, and the manifest of the slides that carry them."""

    tokens: dict[str, str]
    pattern: NDArray[np.uint8]
    """In label and macro: cells of 16 colours."""
    manifest: Path
    short_manifest: Path
    """Of a good slide, a bad one, and one that is missing."""


def make_tokens(seed: int) -> dict[str, str]:
    """40 unique tokens; dates and numbers look like such."""
    rng = random.Random(seed)

    def word() -> str:
        return "".join(rng.choices("BCDFGHJKLMNPQRSTVWXZ", k=11)).capitalize()

    tokens = {place: word() for place in PLACES}
    for place in ("aperio Date", "dicom PatientBirthDate"):
        # No day that is, so that no clock can say it.
        tokens[place] = (
            f"18{rng.randrange(100):02d}{rng.randrange(1, 13):02d}{rng.randrange(10, 29)}"
        )
    for place in ("MRN", "dicom PatientID", "aperio Barcode"):
        tokens[place] = f"{rng.randrange(10**10, 10**11)}"
    tokens["dicom PatientName"] = f"{word()}^{word()}"
    assert len(set(tokens.values())) == len(PLACES) == 40
    return tokens


def make_pattern(seed: int, *, cell: int = 24) -> NDArray[np.uint8]:
    """Random cells of 16 colours that differ in brightness."""
    rng = np.random.default_rng(seed)
    colours = np.linspace(0, 255, 16)[:, None] * [1.0, 0.85, 0.6]
    cells = colours[rng.integers(16, size=(PATTERN_CELLS, PATTERN_CELLS))]
    return np.kron(cells, np.ones((cell, cell, 1))).round().astype(np.uint8)


def plant(folder: Path, tissue: NDArray[np.uint8], dicom: Path, seed: int) -> Canaries:
    """Write the slides below `folder`, good and bad, and a manifest of them.

    Parameters
    ----------
    tissue
        What is on the good slides, at 2 um/px.
    dicom
        A DICOM slide of one file, which is copied and edited.
    """
    tokens, pattern = make_tokens(seed), make_pattern(seed)
    home = folder / tokens["grandparent folder"] / tokens["parent folder"]
    home.mkdir(parents=True)
    good = home / f"{tokens['file of a good slide']}.svs"
    bad = home / f"{tokens['file of a bad slide']}.svs"
    write_aperio(good, tissue, tokens, pattern)
    good.with_name(f"{good.name}.sha256.txt").write_text(tokens["sidecar"])
    write_tagged(home / "tagged.tif", tissue, tokens)
    write_ome(home / "plain.ome.tif", tissue, tokens)
    write_ome(home / "scale.ome.tif", tissue, tokens, scale=tokens["ome scale"])
    write_dicom(home / "instance.dcm", dicom, tokens)
    bad.write_text(f"no slide, of {tokens['MRN']}")
    damaged = home / f"{tokens['file of a bad slide']}-damaged.svs"
    damaged.write_bytes(good.read_bytes())
    zero_tiles(damaged, [5])
    short = home / f"{tokens['file of a bad slide']}-short.svs"
    short.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    hashed = home / f"{tokens['file of a bad slide']}-hashed.svs"
    hashed.write_bytes(good.read_bytes())
    hashed.with_name(f"{hashed.name}.sha256").write_text(f"{tokens['sidecar']}  {hashed.name}\n")
    manifest = folder / f"{tokens['manifest file']}.csv"
    listed = [good, *(home / f"{name}.tif" for name in ("tagged", "plain.ome", "scale.ome"))]
    listed += [bad, damaged, short, hashed]
    rows: list[tuple[Path, str, str, str]] = [
        (path, "", tokens["manifest notes"], tokens["manifest patient"]) for path in listed
    ]
    rows += [
        (home / "instance.dcm", "2.0", tokens["MRN"], tokens["MRN"]),
        (home / f"{tokens['file that is missing']}.svs", "", "", tokens["MRN"]),
        (home / "stated.tif", tokens["manifest mpp"], "", tokens["MRN"]),
    ]
    short_list = folder / f"{tokens['manifest file']}-short.csv"
    for path, chosen in ((manifest, rows), (short_list, (rows[1], rows[4], rows[-2]))):
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("path", "mpp", "notes", "patient_id"))
            table.writerows((str(slide), *cells) for slide, *cells in chosen)
    return Canaries(tokens, pattern, manifest, short_list)


def write_aperio(
    path: Path, tissue: NDArray[np.uint8], tokens: dict[str, str], pattern: NDArray[np.uint8]
) -> None:
    """An SVS whose description, label and macro identify."""
    height, width = tissue.shape[:2]
    told = "|".join(f"{field} = {tokens[f'aperio {field}']}" for field in APERIO)
    head = f"Aperio Image Library v11.2.1\r\n{width}x{height} [0,0 {width}x{height}] (256x256)"
    common = {"photometric": "rgb", "metadata": None, "software": "Aperio Image Library v11.2.1"}
    macro = np.full((300, 700, 3), 220, np.uint8)
    macro[20:260, 430:670] = pattern
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            tissue, tile=(256, 256), compression="jpeg", description=f"{head} JPEG|AppMag = 5|"
            f"MPP = 2.0|{told}", **common,
        )  # fmt: skip
        thumbnail = np.ascontiguousarray(tissue[::4, ::4])
        for image, name, kind in ((thumbnail, "", 0), (pattern, "label", 1), (macro, "macro", 9)):
            tiff.write(
                image,
                rowsperstrip=len(image),
                compression="lzw",
                subfiletype=kind,
                description=f"Aperio Image Library v11.2.1\r\n{name} {told}",
                **common,
            )


def write_tagged(path: Path, tissue: NDArray[np.uint8], tokens: dict[str, str]) -> None:
    """A generic TIFF whose tags identify."""
    extra = []
    for name, code in TAGS.items():
        if name != "Software":
            text = tokens[f"tiff {name}"]
            extra.append((code, "s", 0, f"<x>{text}</x>" if name == "XMP" else text, True))
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            tissue[::-1],
            tile=(256, 256),
            compression="jpeg",
            photometric="rgb",
            metadata=None,
            software=tokens["tiff Software"],
            description=f"scan of {tokens['MRN']}",
            resolution=(5000, 5000),
            resolutionunit="CENTIMETER",
            extratags=extra,
        )


def write_ome(
    path: Path, tissue: NDArray[np.uint8], tokens: dict[str, str], *, scale: str = "2.0"
) -> None:
    """An OME-TIFF whose XML identifies."""
    height, width = tissue.shape[:2]
    xml = f"""<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
 <Experimenter ID="Experimenter:0" LastName="{tokens["ome experimenter"]}"/>
 <Image ID="Image:0" Name="{tokens["ome image name"]}">
  <Description>{tokens["ome acquisition"]}</Description>
  <Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{width}" SizeY="{height}"
   SizeZ="1" SizeC="3" SizeT="1" PhysicalSizeX="{scale}" PhysicalSizeY="{scale}"
   PhysicalSizeXUnit="µm" PhysicalSizeYUnit="µm" Interleaved="true">
   <Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/>
  </Pixels>
 </Image>
 <StructuredAnnotations><CommentAnnotation ID="Annotation:0">
  <Value>{tokens["ome annotation"]}</Value></CommentAnnotation></StructuredAnnotations>
</OME>"""
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            tissue[:, ::-1],
            tile=(256, 256),
            compression="jpeg",
            photometric="rgb",
            metadata=None,
            description=xml.encode("utf-8"),
        )


def write_dicom(path: Path, source: Path, tokens: dict[str, str]) -> None:
    """A copy of a DICOM slide whose attributes identify."""
    slide = pydicom.dcmread(source)
    for keyword in DICOM[:7]:
        setattr(slide, keyword, tokens[f"dicom {keyword}"])
    specimen = Dataset()
    specimen.SpecimenIdentifier = tokens["dicom SpecimenIdentifier"]
    specimen.SpecimenUID = "1.2.3.4"
    slide.SpecimenDescriptionSequence = Sequence([specimen])
    slide.BarcodeValue = tokens["dicom BarcodeValue"]
    slide.LabelText = tokens["MRN"]
    block = slide.private_block(0x0009, "CANARY", create=True)
    block.add_new(0x01, "LO", tokens["dicom private tag"])
    slide.save_as(path)
