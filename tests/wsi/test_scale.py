"""Scale is physical: stated, plausible, and never guessed."""

from __future__ import annotations

import math

import pytest

from slidetriage.errors import ScaleError
from slidetriage.wsi.scale import check_mpp, objective_warnings, parse_mpp, resolve_mpp
from slidetriage.wsi.slide import Mpp


def test_the_files_own_scale_is_used_per_axis() -> None:
    mpp, warnings = resolve_mpp((0.25, 0.252), None, source="command line", where="a.svs")
    assert (mpp, warnings) == (Mpp(0.25, 0.252, "file"), ())


def test_no_scale_is_refused_with_a_way_out() -> None:
    with pytest.raises(ScaleError) as caught:
        resolve_mpp((None, None), None, source="command line", where="a.svs")
    assert caught.value.code == "E_NO_MPP"
    assert "a.svs" in str(caught.value)
    assert "--mpp" in str(caught.value)


@pytest.mark.parametrize("value", [0.0, -0.25, math.nan, math.inf, 1e9, 352.8, 0.001])
def test_impossible_scales_are_refused_wherever_they_come_from(value: float) -> None:
    with pytest.raises(ScaleError) as in_file:
        resolve_mpp((value, value), None, source="command line", where="a.svs")
    with pytest.raises(ScaleError) as stated:
        resolve_mpp((0.25, 0.25), value, source="manifest", where="a.svs")
    assert {in_file.value.code, stated.value.code} == {"E_BAD_MPP"}


def test_one_impossible_axis_is_enough() -> None:
    with pytest.raises(ScaleError):
        check_mpp(0.25, 0.0, where="a.svs")


def test_what_the_user_states_wins_and_is_flagged_where_the_file_disagrees() -> None:
    mpp, warnings = resolve_mpp((0.25, 0.25), 0.5, source="manifest", where="a.svs")
    assert mpp == Mpp(0.5, 0.5, "manifest")
    assert warnings == ("mpp 0.5 from the manifest replaces 0.25 in the file",)
    assert resolve_mpp((0.25, 0.25), 0.2505, source="manifest", where="a.svs")[1] == ()


def test_the_users_scale_mends_an_impossible_one_in_the_file() -> None:
    mpp, _ = resolve_mpp((0.0, math.nan), 0.5, source="command line", where="a.svs")
    assert mpp.x == 0.5


def test_pixels_that_are_not_square_are_flagged() -> None:
    _, warnings = resolve_mpp((0.25, 0.30), None, source="command line", where="a.svs")
    assert warnings == ("pixels are not square: 0.25 x 0.3 um",)


@pytest.mark.parametrize(
    ("mpp", "power", "flagged"),
    [
        (0.25, 40, False),
        (0.263, 40, False),
        (0.17, 40, False),
        (0.5, 20, False),
        (0.499, 20, False),
        (1.0, 10, False),
        (0.5, 40, True),
        (0.25, 20, True),
        (4.0, 40, True),
        (0.25, None, False),
        (0.25, 0, False),
    ],
)
def test_scale_and_objective_power_must_agree(
    mpp: float, power: float | None, flagged: bool
) -> None:
    assert bool(objective_warnings(Mpp(mpp, mpp, "file"), power)) is flagged


@pytest.mark.parametrize(
    ("text", "value"), [("0.25", 0.25), (" 0.5 ", 0.5), (None, None), ("", None)]
)
def test_numbers_are_read_as_written(text: str | None, value: float | None) -> None:
    assert parse_mpp(text, where="row 3") == value


@pytest.mark.parametrize("text", ["0,25", "40x", "0.25um"])
def test_text_that_is_no_number_says_where_it_stands(text: str) -> None:
    with pytest.raises(ScaleError, match="row 3"):
        parse_mpp(text, where="row 3")
