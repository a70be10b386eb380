"""Physical scale: which mpp a slide has, and whether to believe it.

Nothing is guessed. A slide whose file states no usable mpp is refused unless the user states one.
"""

from __future__ import annotations

from math import isfinite

from slidetriage.errors import ScaleError

from .slide import Mpp, MppSource

PLAUSIBLE_MPP = (0.02, 40.0)
"""um/px of level 0. Light microscopes resolve about 0.2 um, so 0.02 is ten times oversampled; 40 is
coarser than a macro image. Desktop software writes 72 to 600 dpi, which is 353 to 42 um/px."""

ANISOTROPY_LIMIT = 1.05
"""Ratio of the two axes above which a slide is flagged; scanners stay within a percent."""

OBJECTIVE_UM = 10.0
"""mpp times objective power of common scanners: 0.25 at 40x, 0.5 at 20x. It lies between 6.5 and
10.5 (sensors have pixels of 6.5 to 10.5 um), hence the generous limit below."""

OBJECTIVE_LIMIT = 1.6
"""Ratio to the objective's usual mpp above which the two contradict each other."""


def check_mpp(x: float, y: float, *, where: str) -> None:
    """Raise `ScaleError` (E_BAD_MPP) unless both values are plausible um/px.

    >>> check_mpp(0.25, 0.25, where="slide.svs")
    """
    low, high = PLAUSIBLE_MPP
    for value in (x, y):
        if not (isfinite(value) and low <= value <= high):
            raise ScaleError(
                f"{where}: {value:g} um/px cannot be the scale of a slide "
                f"(plausible: {low:g} to {high:g}).",
                mend="State the true one with --mpp or in the manifest's mpp column.",
                code="E_BAD_MPP",
            )


def parse_mpp(text: str | None, *, where: str) -> float | None:
    """A number from a file's property or a manifest's cell; None where there is none.

    Raises `ScaleError` (E_BAD_MPP) for text that is no number, such as `0,25`.
    """
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise ScaleError(
            f"{where}: the mpp stated is not a number.",
            mend="Write it with a decimal point, such as 0.25.",
            code="E_BAD_MPP",
        ) from None


def resolve_mpp(
    in_file: tuple[float | None, float | None],
    stated: float | None,
    *,
    source: MppSource,
    where: str,
) -> tuple[Mpp, tuple[str, ...]]:
    """The mpp to use and what is odd about it.

    Parameters
    ----------
    in_file
        um/px along x and y as the file states them.
    stated
        um/px the user states, for both axes; it wins over the file's.
    source
        Where `stated` came from.

    Raises
    ------
    ScaleError
        E_NO_MPP where nobody states it, E_BAD_MPP where it is impossible.
    """
    x, y = in_file
    if stated is not None:
        check_mpp(stated, stated, where=where)
        if x is not None and isfinite(x) and x > 0 and not 1 / 1.02 <= stated / x <= 1.02:
            return Mpp(stated, stated, source), (
                f"mpp {stated:g} from the {source} replaces {x:g} in the file",
            )
        return Mpp(stated, stated, source), ()
    if x is None or y is None:
        raise ScaleError(
            f"{where}: the file does not say how large its pixels are (no mpp).",
            mend="State it with --mpp (um per pixel; 0.25 is usual at 40x, 0.5 at 20x) "
            "or in the manifest's mpp column.",
            code="E_NO_MPP",
        )
    check_mpp(x, y, where=where)
    if not 1 / ANISOTROPY_LIMIT <= x / y <= ANISOTROPY_LIMIT:
        return Mpp(x, y, "file"), (f"pixels are not square: {x:g} x {y:g} um",)
    return Mpp(x, y, "file"), ()


def objective_warnings(mpp: Mpp, power: float | None) -> tuple[str, ...]:
    """Says so where mpp and objective power contradict each other.

    >>> objective_warnings(Mpp(0.5, 0.5, "file"), 40.0)
    ('mpp 0.5 contradicts the objective power 40x, usual is about 0.25',)
    """
    if power is None or not isfinite(power) or power <= 0:
        return ()
    usual = OBJECTIVE_UM / power
    if 1 / OBJECTIVE_LIMIT <= mpp.x / usual <= OBJECTIVE_LIMIT:
        return ()
    return (f"mpp {mpp.x:g} contradicts the objective power {power:g}x, usual is about {usual:g}",)
