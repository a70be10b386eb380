"""Heatmaps: valid NGFF, values and places exact, the same bytes twice, no flipped bit unseen."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ome_zarr_models
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slidetriage.errors import OutputError
from slidetriage.workflows.heatmap import CHANNELS, rasterise, write_heatmap
from slidetriage.workflows.results import ScoredTiles
from slidetriage.workflows.settings import Ngff

Make = Callable[..., ScoredTiles]

both = pytest.mark.parametrize("ngff", ["0.5", "0.4"])


def metadata(path: Path, ngff: Ngff) -> dict:
    attributes = dict(zarr.open_group(path, mode="r").attrs)
    return attributes["ome"] if ngff == "0.5" else attributes


def chunk_files(path: Path) -> list[Path]:
    files = (f for f in path.rglob("*") if f.is_file())
    return sorted(f for f in files if f.name != "zarr.json" and not f.name.startswith(".z"))


def random_tiles(scored: Make, rows: int, columns: int, **kinds: object) -> ScoredTiles:
    rng = np.random.default_rng(7)
    probability = rng.random((rows, columns))
    probability[rng.random((rows, columns)) < 0.3] = np.nan
    return scored(probability, **kinds)


@both
def test_values_stand_where_the_tiles_are(scored: Make, tmp_path: Path, ngff: Ngff):
    tiles = random_tiles(
        scored, 37, 45, mpp=(0.2527, 0.26), origin=(300, 700), stride_px=30, model_mpp=0.9
    )
    path = tmp_path / "heatmap.zarr"
    write_heatmap(path, tiles, ngff=ngff, name="slide", provenance={})
    dataset = metadata(path, ngff)["multiscales"][0]["datasets"][0]
    scale, translation = (t[t["type"]] for t in dataset["coordinateTransformations"])
    level = zarr.open_group(path, mode="r")[dataset["path"]][...]
    assert level.shape == (3, 37, 45)
    for index in (0, 17, len(tiles.tiles) - 1):
        row, column = tiles.tiles.rows[index], tiles.tiles.columns[index]
        expected = [v[index] for v in (tiles.probability, tiles.attention, tiles.coverage)]
        assert level[:, row, column].tolist() == expected
        x, y, width, height = tiles.tiles.boxes[index]
        # The centre of a level-0 pixel is half a pixel past its edge, and pixel 0 is the origin.
        place = np.array([row, column]) * scale[1:] + translation[1:]
        centre = [(y + (height - 1) / 2) * 0.26, (x + (width - 1) / 2) * 0.2527]
        assert place == pytest.approx(centre, abs=1e-6)
    assert np.isnan(level).any()


@both
def test_coarser_levels_cover_the_same_place(scored: Make, tmp_path: Path, ngff: Ngff):
    tiles = random_tiles(scored, 101, 67)
    path = tmp_path / "heatmap.zarr"
    write_heatmap(path, tiles, ngff=ngff, name="slide", provenance={})
    datasets = metadata(path, ngff)["multiscales"][0]["datasets"]
    assert [d["path"] for d in datasets] == ["s0", "s1", "s2"]
    group = zarr.open_group(path, mode="r")
    corners = []
    for dataset in datasets:
        scale, translation = (t[t["type"]] for t in dataset["coordinateTransformations"])
        corners.append(np.array(translation[1:]) - np.array(scale[1:]) / 2)
        rows, columns = group[dataset["path"]].shape[1:]
        factor = 2 ** int(dataset["path"][1:])
        assert (rows, columns) == (-(-101 // factor), -(-67 // factor))
    assert corners[1:] == [pytest.approx(corners[0])] * 2


@settings(max_examples=15, deadline=None)
@given(
    grid=arrays(
        np.float32,
        st.tuples(st.integers(1, 75), st.integers(1, 75)),
        elements=st.floats(0, 1, width=32),
        fill=st.just(float("nan")),
    )
)
def test_each_level_is_the_mean_of_the_tiles_under_it(scored, grid, tmp_path_factory):
    path = tmp_path_factory.mktemp("pyramid") / "heatmap.zarr"
    tiles: ScoredTiles = scored(grid)
    write_heatmap(path, tiles, name="slide", provenance={})
    raster = rasterise(tiles).astype(np.float64)
    levels = sorted(zarr.open_group(path, mode="r").arrays())
    assert max(levels[-1][1].shape[1:]) <= 32
    assert len(levels) >= (2 if max(grid.shape) > 1 else 1)
    for number, (_, level) in enumerate(levels):
        factor = 2**number
        expected = np.full(level.shape, np.nan)
        for channel, row, column in np.ndindex(*level.shape):
            rows, columns = slice(row * factor, (row + 1) * factor), column * factor
            under = raster[channel, rows, columns : columns + factor]
            if not np.isnan(under).all():
                expected[channel, row, column] = np.nanmean(under)
        np.testing.assert_allclose(level[...], expected, rtol=1e-6)


def test_a_gap_has_no_value_in_any_channel(scored: Make):
    lost = np.array([[False, True, False]])
    probability, attention, coverage = rasterise(
        scored(np.array([[0.5, 0.5, np.nan]]), unread=lost)
    )
    assert np.isnan(probability).tolist() == [[False, True, True]]
    assert np.isnan(attention).tolist() == [[False, True, True]]
    assert np.isnan(coverage).tolist() == [[False, True, True]]


@both
@pytest.mark.parametrize("novelty", [False, True])
def test_the_format_is_as_specified(scored: Make, tmp_path: Path, ngff: Ngff, novelty: bool):
    path = tmp_path / "heatmap.zarr"
    provenance = {"model": "m", "bounds": [3, 4]}
    tiles = random_tiles(scored, 140, 40, novelty=novelty)
    write_heatmap(path, tiles, ngff=ngff, name="n", provenance=provenance)
    ome_zarr_models.open_ome_zarr(path, version=ngff)
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == (3 if ngff == "0.5" else 2)
    assert group.attrs["slidetriage"] == provenance
    image = metadata(path, ngff)
    scales = image["multiscales"][0]
    assert {"name", "type", "metadata"} <= set(scales)
    assert [axis.get("unit") for axis in scales["axes"]] == [None, "micrometer", "micrometer"]
    labels = list(CHANNELS) if novelty else list(CHANNELS[:3])
    assert [channel["label"] for channel in image["omero"]["channels"]] == labels
    finest = group["s0"][...]
    assert finest.shape == (len(labels), 140, 40)
    if novelty:
        np.testing.assert_allclose(finest[3], finest[0] + 1, rtol=1e-6)
        assert image["omero"]["channels"][3]["window"]["max"] == np.nanmax(finest[3])
    for file in path.rglob("*"):
        assert "consolidated" not in file.name
        if file.name in ("zarr.json", ".zattrs", ".zmetadata"):
            assert "consolidated_metadata" not in json.loads(file.read_text())
    for _, array in group.arrays():
        assert np.isnan(array.metadata.fill_value)
        assert array.chunks == (1, 128, 128)
        assert array.dtype == np.float32
    if ngff == "0.5":
        array_metadata = json.loads((path / "s0" / "zarr.json").read_text())
        assert array_metadata["dimension_names"] == ["c", "y", "x"]
        assert [codec["name"] for codec in array_metadata["codecs"]] == ["bytes", "zstd", "crc32c"]
    else:
        array_metadata = json.loads((path / "s0" / ".zarray").read_text())
        assert array_metadata["dimension_separator"] == "/"
        assert array_metadata["compressor"]["id"] == "zlib"  # jzarr in QuPath: null, zlib or blosc
        assert array_metadata["filters"] is None


def test_the_attention_window_ends_at_its_maximum(scored: Make, tmp_path: Path):
    for name, grid in (("some", np.array([[0.2, 0.6]])), ("none", np.full((1, 2), np.nan))):
        tiles = scored(grid)
        write_heatmap(tmp_path / name, tiles, name=name, provenance={})
        windows = [c["window"] for c in metadata(tmp_path / name, "0.5")["omero"]["channels"]]
        top = float(tiles.attention.max()) if len(tiles.tiles) else 1.0
        assert [w["max"] for w in windows] == [1, top, 1]
        assert [w["end"] for w in windows] == [1, top, 1]


@both
def test_the_validator_refuses_what_is_wrong(scored: Make, tmp_path: Path, ngff: Ngff):
    path = tmp_path / "heatmap.zarr"
    write_heatmap(path, random_tiles(scored, 9, 9), ngff=ngff, name="n", provenance={})
    file = path / ("zarr.json" if ngff == "0.5" else ".zattrs")
    for old, new in (('"scale"', '"skale"'), ('"s0"', '"s9"'), ('"axes"', '"axis"')):
        good = file.read_text()
        assert old in good
        file.write_text(good.replace(old, new))
        with pytest.raises((RuntimeError, ValueError)):
            ome_zarr_models.open_ome_zarr(path, version=ngff)
        file.write_text(good)


def test_the_validator_knows_the_published_examples(data: Callable[[str], Path], tmp_path: Path):
    with zipfile.ZipFile(data("geojson/ome-zarr-examples.zip")) as archive:
        archive.extractall(tmp_path)
    for example in sorted((tmp_path / "data" / "valid").glob("image-*.zarr")):
        ome_zarr_models.open_ome_zarr(example)
    invalid = sorted((tmp_path / "data" / "invalid").glob("image-*.zarr"))
    assert invalid
    for example in invalid:
        with pytest.raises((RuntimeError, ValueError, KeyError, FileNotFoundError)):
            ome_zarr_models.open_ome_zarr(example)


@both
def test_the_same_tiles_give_the_same_bytes(scored: Make, tmp_path: Path, ngff: Ngff):
    def write(name: str, provenance: dict[str, object]) -> dict[str, str]:
        path = tmp_path / name
        tiles = random_tiles(scored, 130, 140)
        write_heatmap(path, tiles, ngff=ngff, name="n", provenance=provenance)
        files = sorted(f for f in path.rglob("*") if f.is_file())
        return {str(f.relative_to(path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    assert write("a", {"x": 1, "y": 2}) == write("b", {"y": 2, "x": 1})


@both
def test_every_chunk_is_there_so_a_lost_one_is_noticed(scored: Make, tmp_path: Path, ngff: Ngff):
    path = tmp_path / "heatmap.zarr"
    probability = np.full((150, 300), np.nan)
    probability[0, 0] = 0.5  # most chunks hold NaN only
    write_heatmap(path, scored(probability), ngff=ngff, name="n", provenance={})
    arrays = [array for _, array in zarr.open_group(path, mode="r").arrays()]
    assert all(array.nchunks_initialized == array.nchunks for array in arrays)
    chunk_files(path)[0].unlink()
    assert any(array.nchunks_initialized < array.nchunks for array in arrays)


def read_flipped(path: Path, file: Path, bit: int) -> np.ndarray | None:
    """The channel whose chunk file has one bit flipped, or None where reading fails."""
    good = file.read_bytes()
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    file.write_bytes(bad)
    level, *_, channel, _, _ = file.relative_to(path).parts
    try:
        return zarr.open_array(path / level, mode="r")[int(channel)]
    except (ValueError, RuntimeError, OSError, zlib.error):
        return None
    finally:
        file.write_bytes(good)


@both
def test_two_hundred_of_two_hundred_flipped_bits_are_noticed(
    scored: Make, tmp_path: Path, ngff: Ngff
):
    path = tmp_path / "heatmap.zarr"
    write_heatmap(path, random_tiles(scored, 60, 70), ngff=ngff, name="n", provenance={})
    files = chunk_files(path)
    ends = np.cumsum([8 * f.stat().st_size for f in files])
    noticed = 0
    for place in np.random.default_rng(2).integers(ends[-1], size=200):
        which = int(np.searchsorted(ends, place, side="right"))
        bit = int(place - (ends[which - 1] if which else 0))
        noticed += read_flipped(path, files[which], bit) is None
    assert noticed == 200


@both
def test_no_flipped_bit_of_a_chunk_changes_a_value_unnoticed(
    scored: Make, tmp_path: Path, ngff: Ngff
):
    path = tmp_path / "heatmap.zarr"
    write_heatmap(path, random_tiles(scored, 3, 4), ngff=ngff, name="n", provenance={})
    file = min(chunk_files(path / "s0"), key=lambda f: f.stat().st_size)
    good = zarr.open_array(path / "s0", mode="r")[int(file.parts[-3])]
    unnoticed = 0
    for bit in range(8 * file.stat().st_size):
        values = read_flipped(path, file, bit)
        if values is not None:
            assert np.array_equal(values, good, equal_nan=True)
            unnoticed += 1
    # Deflate ends within a byte, and nobody reads what is left of that byte.
    assert unnoticed <= (0 if ngff == "0.5" else 7)


def test_nothing_is_overwritten(scored: Make, tmp_path: Path):
    tiles = scored(np.array([[0.5]]))
    write_heatmap(tmp_path / "h.zarr", tiles, name="n", provenance={})
    before = sorted(f.read_bytes() for f in (tmp_path / "h.zarr").rglob("*") if f.is_file())
    with pytest.raises(OutputError, match="already"):
        write_heatmap(tmp_path / "h.zarr", tiles, name="m", provenance={})
    assert before == sorted(f.read_bytes() for f in (tmp_path / "h.zarr").rglob("*") if f.is_file())
