"""The detector of a run, and what a result says it was found by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from slidetriage.errors import ModelError
from slidetriage.models import Device
from slidetriage.models.nuclei import NucleusDetector
from slidetriage.models.nuclei.classical import ClassicalDetector
from slidetriage.models.nuclei.foreign_card import CARD_FILE, identify_foreign
from slidetriage.models.nuclei.learned import list_detectors, load_detector
from slidetriage.workflows.settings import CellSettings, Settings
from slidetriage.workflows.surveying import TilesWanted

from .areas import hash_given

CLASSICAL = "classical"

COARSEST = 1.2
"""How many times coarser than the detector's a slide's pixels may be: 0.6 um where it is 0.5."""

TISSUE_UM = 64.0
"""Side of the squares in which tissue is looked for nuclei, where it is all looked through."""

JUDGED = "focus and stain 1"
"""How pixels are judged beside the detector: another text makes earlier results be done anew."""

STEP_PX = 16
"""Windows lie on multiples of it, as a network that halves its image four times needs."""


@dataclass(frozen=True, slots=True)
class Sight:
    """How a detector looks at slides."""

    name: str
    mpp: float
    window_px: int
    margin_px: int

    @classmethod
    def of(cls, detector: NucleusDetector, cells: CellSettings) -> Sight:
        """Of a detector, with a margin that keeps windows on its lattice."""
        half = STEP_PX // 2
        margin_px = -(-detector.margin_px // half) * half
        window_px = -(-cells.window_px // STEP_PX) * STEP_PX
        return cls(detector.name, detector.mpp, window_px, margin_px)

    @property
    def needs(self) -> TilesWanted:
        """Squares of tissue, as a survey chooses them."""
        tile_px = max(1, round(TISSUE_UM / self.mpp))
        return TilesWanted(self.name, self.mpp, (0.0, COARSEST * self.mpp), tile_px)


def open_detector(cells: CellSettings, device: str | Device) -> NucleusDetector:
    """The detector that the settings name; raises `ModelError` where there is none."""
    if cells.detector == CLASSICAL:
        return ClassicalDetector()
    folder = _find_foreign(cells)
    if folder is not None:
        # Imported here: it draws in TorchScript, pickles and the rest of other people's models.
        from slidetriage.models.nuclei.foreign_detectors import load_foreign_detector

        return load_foreign_detector(folder, device=device)
    return load_detector(cells.detector, device=device)


def _find_foreign(cells: CellSettings) -> Path | None:
    """The folder of other people's detector, None where another one is named.

    Raises `ModelError` for a folder of neither kind.
    """
    folder = Path(cells.detector)
    if cells.detector in (CLASSICAL, *list_detectors()) or not folder.is_dir():
        return None
    if (folder / CARD_FILE).is_file():
        return folder
    if not (folder / "card.json").is_file():
        raise ModelError(
            f"{folder} holds no detector.",
            mend="A detector is a folder with card.json and weights.safetensors, or one with "
            f"{CARD_FILE} and the file that it names.",
        )
    return None


def _identify_detector(cells: CellSettings) -> str:
    """The detector's identity; other people's are opened once, and then their file is hashed."""
    folder = _find_foreign(cells)
    if folder is None:
        return open_detector(cells, "cpu").identity
    identity = identify_foreign(folder)
    _prove_usable(cells.detector, identity)
    return identity


@lru_cache(maxsize=8)
def _prove_usable(detector: str, identity: str) -> None:
    """Raise `ModelError` where it cannot be opened; such a network may take seconds to build."""
    open_detector(CellSettings(detector=detector), "cpu")


def what_computes(settings: Settings, model: str) -> str:
    """Hash of everything beside the settings that results depend on; `model` where no nuclei."""
    if settings.cells is None:
        return model
    cells = identify_cells(settings.cells)
    return hashlib.sha256(f"{model}\n{cells}".encode()).hexdigest()


def identify_cells(cells: CellSettings) -> str:
    """Hash of everything beside the settings that nuclei depend on: detector and files.

    Raises `ModelError` or `AreaError` where one of them cannot be used.
    """
    digest = hashlib.sha256(f"{_identify_detector(cells)}\n{JUDGED}".encode())
    if cells.classifier:
        try:
            digest.update(hashlib.sha256(Path(cells.classifier).read_bytes()).digest())
        except OSError as error:
            raise ModelError(
                f"{cells.classifier}: the classifier cannot be read ({error.strerror})."
            ) from error
    if cells.where == "given":
        digest.update(hash_given(cells.given).encode())
    return digest.hexdigest()
