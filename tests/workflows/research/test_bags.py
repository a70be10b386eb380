"""Bags of a cohort: the right slide's features, of one encoder, and what is missing is named."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slidetriage.errors import UsageError
from slidetriage.workflows.research import (
    BagSource,
    Cohort,
    ColumnNames,
    FeatureFacts,
    FileBags,
    NpzBags,
    Target,
    match_features,
    open_bags,
    open_cohort_bags,
    read_cohort,
    write_features,
)
from slidetriage.workflows.research.bags import slide_name
from slidetriage.workflows.research.feature_values import Form

Find = Callable[[str], Path]


def put(
    path: Path, value: float, *, encoder: str | None = "one", tiles: int = 3, **facts: object
) -> Path:
    """Features of four numbers per tile, all of them `value`."""
    form: Form = "zarr" if path.suffix == ".zarr" else "clam"
    write_features(
        path,
        form,
        FeatureFacts(encoder=encoder, **facts),  # type: ignore[arg-type]  # fields of it
        np.zeros((tiles, 2)),
        [np.full((tiles, 4), value, np.float32)],
        feature_size=4,
    )
    return path


def cohort_of(tmp_path: Path, *lines: str) -> Cohort:
    path = tmp_path / "table.csv"
    path.write_text("slide,patient,label,file\n" + "".join(f"{line}\n" for line in lines))
    return read_cohort(path, ColumnNames(label="label", features="file"))


def test_each_slide_gets_its_own_features(tmp_path: Path) -> None:
    put(tmp_path / "a.b.zarr", 1)
    put(tmp_path / "c.h5", 2, tiles=5)
    source = open_bags(tmp_path, ["a.b", "folder/c.svs", "d"])
    assert isinstance(source, FileBags)
    assert (source.encoder, source.feature_size) == ("one", 4)
    assert [source.tiles(slide) for slide in ("a.b", "folder/c.svs", "d")] == [3, 5, None]
    assert (source.load("a.b").features == 1).all()
    assert (source.load("folder/c.svs").features == 2).all()


def test_a_table_may_name_the_files(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    put(tmp_path / "f" / "x.zarr", 7)
    put(tmp_path / "f" / "y.zarr", 8)
    cohort = cohort_of(tmp_path, "a,P1,0,f/y.zarr", "b,P2,1,f/x.zarr")
    source = open_cohort_bags(cohort)
    assert (source.load("a").features == 8).all()
    assert (source.load("b").features == 7).all()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"encoder": "one"}, {"encoder": "two"}),
        ({"tile_px": 224, "mpp": 0.5}, {"tile_px": 224, "mpp": 1.0}),
        ({"tile_px": 224, "mpp": 0.5}, {"tile_px": 256, "mpp": 0.5}),
    ],
)
def test_features_of_two_kinds_are_refused(
    tmp_path: Path, first: dict[str, object], second: dict[str, object]
) -> None:
    put(tmp_path / "a.zarr", 1, **first)  # type: ignore[arg-type]  # facts
    put(tmp_path / "b.h5", 1, **second)  # type: ignore[arg-type]  # facts
    with pytest.raises(UsageError) as caught:
        open_bags(tmp_path, ["a", "b"])
    assert caught.value.code == "E_FEATURES_MIXED"
    for facts in (first, second):
        for value in facts.values():
            assert f"{value:g}" if isinstance(value, float) else str(value) in str(caught.value)
    assert "a.zarr" in str(caught.value)
    assert "b.h5" in str(caught.value)


def test_features_of_another_size_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.h5", 1, encoder=None)
    write_features(
        tmp_path / "b.h5", "clam", FeatureFacts(), np.zeros((2, 2)),
        [np.ones((2, 5), np.float32)], feature_size=5,
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"5 features per tile.*4 features per tile"):
        open_bags(tmp_path, ["a", "b"], encoder_name="mine")


def test_a_file_that_names_no_encoder_needs_a_name(tmp_path: Path) -> None:
    put(tmp_path / "a.h5", 1, encoder=None)
    with pytest.raises(UsageError, match="--encoder-name"):
        open_bags(tmp_path, ["a"])
    assert open_bags(tmp_path, ["a"], encoder_name="mine").encoder == "mine"
    put(tmp_path / "b.h5", 1, encoder="theirs")
    with pytest.raises(UsageError, match=r"theirs.*mine") as caught:
        open_bags(tmp_path, ["a", "b"], encoder_name="mine")
    assert caught.value.code == "E_FEATURES_MIXED"


def test_missing_features_are_named_all_at_once(tmp_path: Path) -> None:
    put(tmp_path / "s0.zarr", 1)
    put(tmp_path / "s1.zarr", 1)
    put(tmp_path / "s9.zarr", 1, tiles=0)
    cohort = cohort_of(tmp_path, *(f"s{n},P{n},{n % 2},-" for n in range(10)))
    source = open_cohort_bags(cohort, tmp_path)
    with pytest.raises(UsageError, match=r"8 of 10 .*s2, s3, s4, s5, s6 and 3 more") as caught:
        match_features(cohort, source)
    assert "rows 4, 5, 6, 7, 8 and 3 more" in str(caught.value)
    left = match_features(cohort, source, excuse={"no-features"})
    assert left.slides == ("s0", "s1")
    assert {row.slide: row.reason for row in left.excluded}["s9"] == "has features of no tile"
    assert len(left.excluded) == 8
    with pytest.raises(UsageError, match="one label"):
        match_features(cohort.take([0, 2]), source, excuse={"no-features"})


def test_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError, match="features"):
            open_bags(where, ["a"])
    cohort = cohort_of(tmp_path, "a,P1,0,a.h5", "b,P2,1,b.h5")
    with pytest.raises(UsageError, match="none of the 2"):
        open_cohort_bags(cohort)


def test_tcga_breast_bags(data: Find) -> None:
    """Every slide's rows as the offsets part them; the file cannot name its encoder."""
    path = data("mil/tcga_brca/bags.npz")
    with pytest.raises(UsageError, match="--encoder-name"):
        open_bags(path, [])
    source: BagSource = open_bags(path, [], encoder_name="hipt-region")
    assert source.feature_size == 192
    with np.load(path) as arrays:
        features, offsets, slides = (arrays[name] for name in ("features", "offsets", "slide_id"))
    for row in (0, 500, 936):
        bag = source.load(str(slides[row]))
        expected = features[offsets[row] : offsets[row + 1]]
        assert bag.features.dtype == np.float32
        np.testing.assert_array_equal(bag.features, expected.astype(np.float32))
        assert source.tiles(str(slides[row])) == len(expected)
        assert bag.corners_px is None
    table = data("mil/tcga_brca/slides.csv")
    names = ColumnNames("slide_id", patient="case_id", label="oncotree_code")
    target = Target(classes=("IDC", "ILC"))
    cohort = read_cohort(table, names, target, excuse={"other-label"})
    assert len(match_features(cohort, source)) == 875


@pytest.mark.parametrize(
    "case", ["objects", "bomb", "offsets", "text", "missing", "twice", "damage"]
)
def test_a_hostile_npz_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bags.npz"
    arrays: dict[str, np.ndarray] = {
        "features": np.zeros((3, 2), np.float16),
        "offsets": np.array([0, 1, 3]),
        "slide_id": np.array(["a", "b"]),
    }
    if case == "objects":
        arrays["slide_id"] = np.array(["a", print], object)
    elif case == "offsets":
        arrays["offsets"] = np.array([0, 1, 4])
    elif case == "missing":
        del arrays["offsets"]
    elif case == "twice":
        arrays["slide_id"] = np.array(["a", "a"])
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # names of arrays
    if case == "text":
        path.write_text("features")
    elif case == "bomb":
        header = "{'descr': '<f2', 'fortran_order': False, 'shape': (10**9, 192), }".replace(
            "10**9", str(10**9)
        )
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
            archive.writestr("features.npy", magic + header.encode() + bytes(10**6))
            for name in ("offsets", "slide_id"):
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, arrays[name])
    elif case == "damage":
        arrays["features"] = np.random.default_rng(0).normal(size=(3, 999))
        np.savez(path, **arrays)  # type: ignore[arg-type]  # names of arrays
        content = bytearray(path.read_bytes())
        content[9000] ^= 255
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        NpzBags(path, encoder_name="x").load("b")
    assert caught.value.code == "E_FEATURES"


def test_a_slide_is_called_as_its_file() -> None:
    assert slide_name("x/y.svs") == "y"
    assert slide_name("TCGA-1.F6E9") == "TCGA-1.F6E9"
    assert slide_name("x/y.ome.tif") == "y.ome"
