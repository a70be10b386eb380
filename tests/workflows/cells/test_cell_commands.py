"""The command `cells` writes its label image in the version asked for, or that the run had."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import zarr

from slidetriage import Resources, Settings, triage
from slidetriage.workflows.cli import main
from slidetriage.workflows.interrupts import WISHES
from slidetriage.wsi import PhantomSpec, paint_phantom


def cells(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run the command in this process; its exit status."""
    asked = [
        "slidetriage",
        "cells",
        *map(str, arguments),
        "--detector",
        "classical",
        "--engine",
        "serial",
    ]
    monkeypatch.setattr(sys, "argv", asked)
    handlers = {wish: signal.getsignal(wish) for wish in WISHES}
    with pytest.raises(SystemExit) as ended:
        main()
    for wish, handler in handlers.items():
        signal.signal(wish, handler)
    return ended.value.code if isinstance(ended.value.code, int) else 0


def version(out: Path) -> int:
    """The Zarr format of the one label image in an output folder."""
    (image,) = out.glob("*/nuclei.zarr")
    return zarr.open_group(image, mode="r").metadata.zarr_format


def test_the_label_image_has_the_version_of_the_run_or_that_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = tmp_path / "tumour.tif"
    paint_phantom(slide, PhantomSpec(width_mm=1.6, height_mm=1.2, mpp=0.5, seed=1))
    settings = Settings(ngff="0.4")
    triage(slide, tmp_path / "run", settings=settings, resources=Resources("serial"))
    assert cells(monkeypatch, tmp_path / "run") == 0
    assert version(tmp_path / "run-cells") == 2
    other = tmp_path / "other"
    assert cells(monkeypatch, tmp_path / "run", "--ngff", "0.5", "--out", other) == 0
    assert version(other) == 3
    assert cells(monkeypatch, slide, "--whole", "--out", tmp_path / "whole") == 0
    assert version(tmp_path / "whole") == 3
    assert cells(monkeypatch, slide, "--whole", "--ngff", "7", "--out", tmp_path / "no") == 2
