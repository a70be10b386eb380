"""Slides out of focus or of another stain: what a run says of them, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import hed2rgb, rgb2hed

from slidetriage import Resources, Settings, triage
from slidetriage.models.nuclei.pixel_quality import PixelBlocks
from slidetriage.workflows.cells.heeding import MOST_BLURRED, heed_pixels, list_doubts
from slidetriage.workflows.driver import TriageReport
from slidetriage.workflows.settings import CellSettings
from slidetriage.workflows.steps import SlideResult
from slidetriage.wsi import PhantomSpec, plan_phantom
from slidetriage.wsi.phantom_paint import render_pixels
from tiny_slides import write_tiff

Find = Callable[[str], Path]
Pixels = NDArray[np.uint8]

WHOLE = CellSettings("tissue", detector="classical")
FOCUS = "Nuclei may be missing"
STAIN = "The stain does not look like H&E"


def make_blocks(
    blurred: float = 0.0, *, brown: float = 0.0, pink: float = 0.5, blue: float = 0.0
) -> PixelBlocks:
    """A hundred blocks, so many of them out of focus, all with the same stain."""
    stains = np.tile(np.round(np.array([1, brown, pink, blue]) * 1000).astype(np.int64), (100, 1))
    out = np.arange(100) < round(100 * blurred)
    return PixelBlocks(np.zeros((100, 2)), np.full(100, 2304.0), out, stains)


def make_result(verdict: str) -> SlideResult:
    return SlideResult(
        slide_id="slide",
        state="DONE",
        verdict=verdict,  # type: ignore[arg-type]  # one of them
        score=0.5,
        directory="slide",
        regions=1,
        flagged_mm2=1.0,
        tissue_mm2=2.0,
        tiles=10,
        unreadable=0,
        warnings=(),
        reasons=("first",),
        ruled_out=verdict == "clear",
        nuclei=100,
        abnormal_nuclei=1,
    )


@pytest.mark.parametrize("verdict", ["flag", "clear", "needs eyes", "not scored"])
def test_without_doubts_nothing_changes(verdict: str) -> None:
    result = make_result(verdict)
    assert heed_pixels(result, make_blocks(MOST_BLURRED)) == result
    assert heed_pixels(result, PixelBlocks.none(), stated="H&E") == result


@pytest.mark.parametrize(
    ("before", "blurred", "strange"),
    [
        ("flag", "flag", "needs eyes"),
        ("clear", "needs eyes", "needs eyes"),
        ("needs eyes", "needs eyes", "needs eyes"),
        ("not scored", "not scored", "not scored"),
    ],
)
def test_verdicts_follow_from_doubts(before: str, blurred: str, strange: str) -> None:
    first = heed_pixels(make_result(before), make_blocks(0.23))
    assert (first.verdict, first.ruled_out) == (blurred, False)
    assert first.reasons == (
        "first",
        "Nuclei may be missing: 23% of the tissue looked at is out of focus.",
    )
    second = heed_pixels(make_result(before), make_blocks(brown=0.4, pink=0.01))
    assert (second.verdict, second.ruled_out) == (strange, False)
    assert second.reasons[1:] == (
        "The stain does not look like H&E: 40% of what is strongly stained is brown, as "
        "diaminobenzidine is, and 1% pink.",
    )


def test_a_stated_stain_is_heeded_where_slides_are_not_scored() -> None:
    secret = heed_pixels(make_result("not scored"), make_blocks(), stated="Ki-67 of Mrs M")
    assert "is not H&E" in secret.reasons[1]
    assert "Ki-67" not in " ".join(secret.reasons)
    assert heed_pixels(make_result("flag"), make_blocks(), stated="Ki-67").reasons == ("first",)


def test_blue_alone_is_told() -> None:
    (doubt,) = list_doubts(make_blocks(blue=0.9, pink=0.0))
    assert doubt.endswith("90% of what is strongly stained is blue or green, and 0% pink.")


@pytest.fixture(scope="module")
def painted() -> Pixels:
    """A slide of 1.6 x 1.2 mm at 0.5 um/px with tumour, in focus."""
    scene = plan_phantom(PhantomSpec(1.6, 1.2, 0.5, seed=1, pen=False, blur=False))
    return render_pixels(scene, (0, 0, *scene.spec.size_px), 0.5)


def run(slide: Path, out: Path, cells: CellSettings) -> TriageReport:
    return triage(slide, out, settings=Settings(cells=cells), resources=Resources("serial"))


def said_of(report: TriageReport) -> tuple[SlideResult, dict[str, object]]:
    (row,) = report.rows
    assert isinstance(row.outcome, SlideResult), row.outcome
    text = (report.out / row.outcome.directory / "result.json").read_bytes()
    return row.outcome, json.loads(text)


def test_a_slide_half_out_of_focus_says_so(painted: Pixels, tmp_path: Path) -> None:
    half = painted.copy()
    half[:, 1600:] = cv2.GaussianBlur(painted, (0, 0), 2.5)[:, 1600:]
    slide = write_tiff(tmp_path / "half.tif", half)
    result, said = said_of(run(slide, tmp_path / "serial", WHOLE))
    share = said["cells"]["slide"]["out_of_focus_share"]
    (region,) = said["cells"]["regions"]
    assert 0.35 < share < 0.65
    assert region["out_of_focus_share"] == pytest.approx(share, abs=0.02)
    assert any(reason.startswith(FOCUS) for reason in result.reasons)
    assert said["cells"]["stain"]["fits_he"] is True
    assert said["reasons"] == list(result.reasons)
    listed = (tmp_path / "serial" / "worklist.csv").read_text()
    assert f"{FOCUS}: {share:.0%} of the tissue looked at is out of focus" in listed


def test_a_sharp_slide_has_no_doubts(painted: Pixels, tmp_path: Path) -> None:
    slide = write_tiff(tmp_path / "sharp.tif", painted)
    _, said = said_of(run(slide, tmp_path / "out", WHOLE))
    assert said["cells"]["slide"]["out_of_focus_share"] < 0.01
    assert said["cells"]["doubts"] == []


def test_haematoxylin_with_diaminobenzidine_needs_eyes(painted: Pixels, tmp_path: Path) -> None:
    haematoxylin, eosin, _ = np.moveaxis(rgb2hed(painted[:1600, :1600]), 2, 0)
    # What was eosin is diaminobenzidine now.
    brown = hed2rgb(np.stack([haematoxylin, 0 * eosin, eosin], 2))
    brown = np.rint(255 * brown).astype(np.uint8)
    slide = write_tiff(tmp_path / "brown.tif", brown)
    result, said = said_of(run(slide, tmp_path / "out", WHOLE))
    assert result.verdict == "not scored"
    assert any(reason.startswith(STAIN) for reason in result.reasons), said["cells"]["stain"]


def test_a_real_slide_is_in_focus_and_h_and_e_until_it_is_blurred(
    data: Find, tmp_path: Path
) -> None:
    real = data("slides/CMU-1-Small-Region.svs")
    square = tmp_path / "square.geojson"
    square.write_text(
        json.dumps(
            {
                "type": "Polygon",
                "coordinates": [
                    [[800, 1600], [1500, 1600], [1500, 2300], [800, 2300], [800, 1600]]
                ],
            }
        )
    )
    given = CellSettings("given", str(square), detector="classical")
    _, said = said_of(run(real, tmp_path / "out", given))
    assert said["cells"]["slide"]["out_of_focus_share"] == 0
    assert said["cells"]["stain"]["fits_he"] is True
    assert said["cells"]["doubts"] == []
