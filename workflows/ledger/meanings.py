"""What each code means for a person, and how it is mended."""

from __future__ import annotations

from typing import NamedTuple


class Meaning(NamedTuple):
    """A code in words."""

    what: str
    mend: str


_COPY = "Copy the slide again from where it came from, then run again."
_AGAIN = "Run `slidetriage resume`; if it fails again, look at disk and network."
_EXPORT = "Export it from the scanner's software anew, as a brightfield slide."

MEANINGS: dict[str, Meaning] = {
    "E_NOT_FOUND": Meaning("No file was at the path given.", "Correct the path, or mount it."),
    "E_PERMISSION": Meaning("The file may not be read.", "Give yourself the right to read it."),
    "E_NOT_REGULAR": Meaning("A folder, device or the like, no file.", "Name the slide's file."),
    "E_EMPTY": Meaning("The file has no bytes.", _COPY),
    "E_NOT_SLIDE": Meaning(
        "No format that can be read, or a file of the slide is missing.",
        "Check that it is a slide, and that all files that belong to it are beside it.",
    ),
    "E_TRUNCATED": Meaning("The file ends before its data do.", _COPY),
    "E_NOT_RGB": Meaning("Its pixels are no 8-bit colours.", _EXPORT),
    "E_TOO_LARGE": Meaning(
        "It claims to be larger than any slide, or than its file can hold.", _EXPORT
    ),
    "E_HASH": Meaning("Its content is not that of the sha256 that was given.", _COPY),
    "E_NO_MPP": Meaning(
        "The file does not say how large a pixel is.", "State it with --mpp or in the manifest."
    ),
    "E_BAD_MPP": Meaning(
        "The size of a pixel makes no sense.", "State it with --mpp or in the manifest."
    ),
    "E_MPP_TOO_COARSE": Meaning(
        "It was scanned too coarsely for the model.",
        "Scan it at a higher power, or choose a model for coarser pixels.",
    ),
    "E_SLIDE": Meaning("It cannot be used as it is.", "Read its reason in the worklist."),
    "E_TILE_DECODE": Meaning("Pixels that are needed cannot be decoded.", _COPY),
    "E_TOO_MANY_GAPS": Meaning(
        "More of its tissue could not be read than is allowed.",
        "Copy the slide again, or allow more with --max-unreadable.",
    ),
    "E_UNSTABLE": Meaning(
        "The file changed while it was read.", "Wait until it is written, then run again."
    ),
    "E_IO": Meaning("Reading failed for a reason outside the slide.", _AGAIN),
    "E_TIMEOUT": Meaning("Reading took longer than it may.", _AGAIN),
    "E_CRASH": Meaning(
        "The process that worked on it died, more than once.",
        "Copy the slide again; keep it apart if it does so again, and report it.",
    ),
    "E_BUNDLE": Meaning("The model is missing or damaged.", "Check the folder of the model."),
    "E_MODEL_NAN": Meaning(
        "The model gave numbers that are none.", "Report it to whoever made the model."
    ),
    "E_OUT_OF_MEMORY": Meaning(
        "Memory ran out, also with smaller batches.", "Use fewer workers, or a larger machine."
    ),
    "E_OUTPUT": Meaning("Results could not be written.", "Free space on the disk, then run again."),
    "E_LOCKED": Meaning("Another run was writing to the folder.", "Wait for it to end."),
    "E_SCHEDULER": Meaning("The workers could not be reached.", _AGAIN),
    "E_CLOSED": Meaning("The run was ending.", "Run `slidetriage resume`."),
    "E_USAGE": Meaning("What was asked for makes no sense.", "Read its reason in the worklist."),
    "E_PENDING": Meaning("The run ended before it.", "Run `slidetriage resume`."),
    "E_INTERNAL": Meaning("A fault of slidetriage.", "Report it with the log of the run."),
}

UNKNOWN = Meaning("A code that this version does not know.", "Read its reason in the worklist.")


def explain(code: str) -> Meaning:
    """What a code means and how it is mended; says so where it is not known."""
    return MEANINGS.get(code, UNKNOWN)
