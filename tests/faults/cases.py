"""The fault matrix as data: 76 cases in six sections, and how each must end."""

from __future__ import annotations

from dataclasses import dataclass

SECTIONS = {"A": (1, 14), "B": (15, 24), "C": (25, 38), "D": (39, 55), "E": (56, 65), "F": (66, 76)}
"""First and last case of each."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case of the matrix."""

    number: int
    what: str
    how: str
    """F a file is generated, ST strace injects faults, TM a small tmpfs, SG a signal, MP a stub
    model, SC a second process."""
    expected: tuple[str, ...]
    """Codes and states that its specimens may end with."""
    fails: tuple[str, ...]
    """Its specimens that must end without a result, by what is special of each."""
    passes: tuple[str, ...]
    """Its specimens that must not."""

    @property
    def section(self) -> str:
        """The letter of its section."""
        return next(s for s, (low, high) in SECTIONS.items() if low <= self.number <= high)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its specimens."""
        variants = (*self.fails, *self.passes)
        return tuple(f"{self.number:02d}-{v}" if v else f"{self.number:02d}" for v in variants)


def _case(
    number: int,
    what: str,
    expected: str,
    *,
    how: str = "F",
    fails: str | None = None,
    passes: str | None = None,
) -> Case:
    """Specimens are split by `|`; one that is the only of its kind has no name."""
    lists = (() if names is None else tuple(names.split("|")) for names in (fails, passes))
    return Case(number, what, how, tuple(expected.split()), *lists)


CASES = (
    _case(1, "file of no bytes", "E_EMPTY", fails="|dicom"),
    _case(2, "text called .svs", "E_NOT_SLIDE", fails="|html|json|blank|xml"),
    _case(3, "folder called x.svs", "E_NOT_REGULAR", fails="|link"),
    _case(4, "named pipe", "E_NOT_REGULAR", fails="|link"),
    _case(5, "device, socket", "E_NOT_REGULAR", fails="device|socket"),
    _case(6, "links in a circle", "E_NOT_FOUND", fails=""),
    _case(7, "link to nothing", "E_NOT_FOUND", fails="|folder|under-a-file"),
    _case(8, "no permission to read", "E_PERMISSION", fails="|folder"),
    _case(9, "random bytes", "E_NOT_SLIDE E_TRUNCATED", fails="|dicom|tiff"),
    _case(10, "header of a TIFF alone", "E_TRUNCATED", fails="little|big|count|bigtiff|past-end"),
    _case(11, "directories in a circle", "E_NOT_SLIDE", fails="aperio|generic|self"),
    _case(12, "JPEG or PNG called .svs", "E_NOT_SLIDE", fails="jpeg|png|gif|bmp|webp|tiff"),
    _case(13, "compression that does not exist", "E_NOT_SLIDE", fails="aperio|generic|level"),
    _case(
        14,
        "vendor's file that nothing here decodes",
        "E_NOT_SLIDE",
        fails="czi|isyntax|vms|zip|gzip|pdf",
    ),
    _case(
        15, "truncated at 10, 50, 90, 99 %", "E_TRUNCATED", fails="1|5|10|25|33|50|75|90|95|99|99.9"
    ),
    _case(16, "last byte missing", "E_TRUNCATED", fails="last-directory|last-tile"),
    _case(
        17, "TIFF with its directories first, truncated", "E_TRUNCATED", fails="10|30|50|70|90|99"
    ),
    _case(
        18,
        "end overwritten with zeros",
        "E_TILE_DECODE E_TOO_MANY_GAPS E_HASH E_NOT_SLIDE",
        fails="20|60|90|sidecar|head",
    ),
    _case(19, "file that grows during the run", "E_UNSTABLE", how="SC", fails=""),
    _case(
        20,
        "content that is not of the sha256 expected",
        "E_HASH DONE",
        fails="sidecar|column|no-hex|empty|no-hex-column",
        passes="right",
    ),
    _case(
        21, "MRXS without its folder, without a .dat", "E_NOT_SLIDE", fails="folder|dat|index|ini"
    ),
    _case(
        22,
        "DICOM series without an instance",
        "E_TRUNCATED E_NOT_SLIDE E_TILE_DECODE",
        fails="|frames",
    ),
    _case(23, "DICOM instance twice", "DONE", passes=""),
    _case(24, "two DICOM series in a folder", "DONE", passes="one|two"),
    _case(25, "one bad tile", "DONE_WITH_GAPS", passes="|noise"),
    _case(26, "1 % of tiles bad, all bad", "E_TOO_MANY_GAPS E_TILE_DECODE", fails="|noise|cut|all"),
    _case(27, "bad tile before all others", "DONE_WITH_GAPS", passes=""),
    _case(28, "bad label", "DONE", passes=""),
    _case(29, "bad macro image", "DONE", passes=""),
    _case(30, "bad thumbnail", "DONE", passes=""),
    _case(31, "tiles that were never written", "DONE_WITH_GAPS", passes=""),
    _case(
        32,
        "one flipped bit, with and without sidecar",
        "E_HASH DONE",
        fails="sidecar",
        passes="without-sidecar",
    ),
    _case(33, "tile past the end of the file", "DONE_WITH_GAPS", passes=""),
    _case(34, "tile that says it has 2 GB", "DONE_WITH_GAPS", passes=""),
    _case(
        35,
        "tile of absurd size, frame that kills its reader",
        "E_TOO_LARGE E_NOT_SLIDE E_CRASH",
        fails="square|tall|none|killed",
    ),
    _case(
        36,
        "JPEG 2000 codestreams damaged",
        "DONE_WITH_GAPS E_TOO_MANY_GAPS E_TILE_DECODE",
        fails="all",
        passes="",
    ),
    _case(37, "coarse level bad, level 0 good", "DONE", passes=""),
    _case(38, "colour profile of garbage", "DONE", passes=""),
    _case(39, "0 px wide or high", "E_NOT_SLIDE", fails="width|height|both"),
    _case(
        40,
        "100,000 px declared over small data",
        "E_NOT_SLIDE E_TRUNCATED",
        fails="|wide|tall|table",
    ),
    _case(41, "1,000,000 px square, nothing written", "E_TOO_LARGE", fails="|2^31|2^32|600,000"),
    _case(42, "single level of 65,000 px square", "DONE", passes=""),
    _case(43, "no mpp", "E_NO_MPP", fails="aperio|tags|unit"),
    _case(
        44,
        "mpp 0, negative, NaN, 1e9, with a comma",
        "E_BAD_MPP E_NO_MPP DONE",
        fails="0|-2|nan|1e9|inf|1e-9|60|sheet 0,25|sheet -1|sheet 0|sheet nan|sheet 1e9|sheet word|"
        "sheet inf|sheet 1e-9",
        passes="comma",
    ),
    _case(45, "pixels that are not square", "DONE", passes=""),
    _case(46, "objective that contradicts the mpp", "DONE", passes=""),
    _case(47, "levels that are no power of two apart", "DONE", passes=""),
    _case(48, "no levels but the first", "DONE", passes=""),
    _case(49, "level larger than level 0", "E_NOT_SLIDE E_BAD_MPP", fails="aperio|generic"),
    _case(
        50,
        "grey, 16-bit, palette, CMYK, Lab, fluorescence; RGBA is taken",
        "E_NOT_RGB DONE",
        fails="grey|two-channels|sixteen-bit|float|cmyk|lab|palette|fluorescence",
        passes="rgba",
    ),
    _case(51, "white, no tissue", "DONE", passes=""),
    _case(52, "black, pen all over", "DONE", passes="black|pen"),
    _case(53, "tissue smaller than a tile", "DONE", passes=""),
    _case(54, "tissue everywhere", "DONE", passes=""),
    _case(55, "mpp eight times the model's", "E_MPP_TOO_COARSE", fails="|8|4.6"),
    _case(56, "spaces, quotes, other scripts", "DONE", passes="quotes|unicode|right-to-left"),
    _case(57, "newline and escape in a name", "DONE", passes="newline|escape"),
    _case(58, "name that is no text", "DONE", passes=""),
    _case(
        59,
        "names that differ in accents' form or case",
        "DONE",
        passes="decomposed|composed|upper|lower|equal-upper|equal-lower",
    ),
    _case(60, "one name in two folders, two suffixes", "DONE", passes="one|two|suffix"),
    _case(61, "one content twice", "DONE", passes="first|second"),
    _case(
        62,
        "name of 255 bytes, path of 4,096",
        "DONE E_NOT_FOUND",
        fails="too-long",
        passes="name|path",
    ),
    _case(
        63,
        "CON.svs, x..svs, names that begin with - or .",
        "DONE",
        passes="device|dots|dash|hidden",
    ),
    _case(64, "link to a slide elsewhere", "DONE", passes=""),
    _case(65, "manifest with ../ in a slide's id", "DONE E_NOT_FOUND", fails="path", passes=""),
    _case(66, "one read fails", "DONE", how="ST", passes="tile|head"),
    _case(67, "every read fails", "E_IO", how="ST", fails="all|amid"),
    _case(68, "share gone for a while", "DONE", how="ST", passes="opening|reading"),
    _case(
        69,
        "read that does not come back",
        "DONE E_TIMEOUT E_IO",
        how="ST",
        fails="always",
        passes="once",
    ),
    _case(70, "few files may be open", "DONE E_IO E_OUTPUT", how="SG", passes=""),
    _case(71, "another file in the slide's place", "E_UNSTABLE", how="SC", fails=""),
    _case(72, "too little memory", "E_OUT_OF_MEMORY", how="SG", fails=""),
    _case(73, "too little memory on the GPU", "DONE", how="MP", passes="memory|cuda"),
    _case(74, "model that gives NaN", "E_MODEL_NAN", how="MP", fails=""),
    _case(75, "disk full", "E_OUTPUT", how="TM", fails=""),
    _case(
        76,
        "output read-only, or gone during the run",
        "E_OUTPUT",
        how="TM",
        fails="read-only|opening|reading",
    ),
)

BY_NUMBER = {case.number: case for case in CASES}
