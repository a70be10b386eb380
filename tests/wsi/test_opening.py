"""What opens, what is refused and why, on real slides and on broken ones."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile
from PIL import Image

from slidetriage.errors import SlideError, SlideNotFound, SlideNotReadable
from slidetriage.wsi import Box, hash_slide, open_reader, open_slide
from tiny_slides import gradient, patch_table, tile_offsets, write_tiff

Find = Callable[[str], Path]


def code_of(path: Path, *, mpp: float | None = None) -> str:
    with pytest.raises(SlideError) as caught:
        open_slide(path, mpp=mpp)
    assert path.name in str(caught.value), "the message names the slide"
    assert caught.value.mend, "the message says how to mend it"
    return caught.value.code


@pytest.mark.parametrize(
    ("name", "vendor", "mpp", "size"),
    [
        ("slides/CMU-1-Small-Region.svs", "aperio", 0.499, (2220, 2967)),
        ("slides/cmu1-dicom/level-0-frames-0-30.dcm", "dicom", 0.499, (2220, 2967)),
        ("slides/idc_14082.tif", "generic-tiff", 4.0, (2901, 2351)),
        ("slides/dicom-variants/jpeg2000.dicom", "dicom", 16.783, (957, 715)),
        ("slides/dicom-variants/raw.dicom", "dicom", 16.783, (957, 715)),
    ],
)
def test_real_slides_open_with_their_own_scale(
    data: Find, name: str, vendor: str, mpp: float, size: tuple[int, int]
) -> None:
    slide = open_slide(data(name))
    assert slide.vendor == vendor
    assert (slide.width_px, slide.height_px) == size
    assert slide.mpp.x == pytest.approx(mpp, rel=1e-4)
    assert slide.mpp.source == "file"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("slides/TCGA-CR-7395-01A-01-TS1.svs", "E_NO_MPP"),
        ("slides/kidney-48-5.tif", "E_NO_MPP"),
        ("odd/boxes.tiff", "E_BAD_MPP"),
        ("odd/unopenable.tiff", "E_NOT_SLIDE"),
        ("odd/broken-html.svs", "E_NOT_SLIDE"),
        ("odd/CMU-1-Saved-1_16.mrxs", "E_NOT_SLIDE"),
        ("odd/grey10kx5k.tif", "E_NOT_RGB"),
        ("odd/small_la.tiff", "E_NOT_RGB"),
        ("odd/sm_annotations.dcm", "E_NOT_SLIDE"),
        ("odd/sm_image_grayscale.dcm", "E_NOT_SLIDE"),
    ],
)
def test_real_odd_files_are_refused_with_their_code(data: Find, name: str, code: str) -> None:
    assert code_of(data(name)) == code


def test_a_stated_scale_opens_what_has_none(data: Find) -> None:
    slide = open_slide(data("slides/TCGA-CR-7395-01A-01-TS1.svs"), mpp=0.5)
    assert (slide.mpp.x, slide.mpp.source) == (0.5, "command line")
    plain = open_slide(data("slides/kidney-48-5.tif"), mpp=0.5, mpp_source="manifest")
    assert (plain.reader, plain.mpp.source) == ("image", "manifest")


def test_missing_empty_and_irregular_files_are_told_apart(tmp_path: Path) -> None:
    empty = tmp_path / "empty.svs"
    empty.touch()
    text = tmp_path / "text.svs"
    text.write_text("not a slide")
    folder = tmp_path / "folder.svs"
    folder.mkdir()
    pipe = tmp_path / "pipe.svs"
    os.mkfifo(pipe)
    dangling = tmp_path / "dangling.svs"
    dangling.symlink_to("nowhere")
    assert code_of(tmp_path / "missing.svs") == "E_NOT_FOUND"
    assert code_of(dangling) == "E_NOT_FOUND"
    assert code_of(empty) == "E_EMPTY"
    assert code_of(text) == "E_NOT_SLIDE"
    assert code_of(folder) == "E_NOT_REGULAR"
    assert code_of(pipe) == "E_NOT_REGULAR"


def test_errors_are_also_the_builtin_that_fits(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_slide(tmp_path / "missing.svs")
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, SlideNotFound)
    assert (again.code, str(again)) == (caught.value.code, str(caught.value))


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_svs_is_said_to_be_truncated(
    data: Find, tmp_path: Path, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    content = data("slides/CMU-1-Small-Region.svs").read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(content[: int(len(content) * share)])
    assert code_of(path) == "E_TRUNCATED"
    assert capfd.readouterr().err == "", "a library's own words are not for the user"


def test_tiles_past_the_end_are_a_truncation(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "cut.tif", gradient(1024, 1024))
    offsets, counts, _, _ = tile_offsets(path)
    with path.open("r+b") as file:
        file.truncate(offsets[8] + counts[8] // 2)
    assert code_of(path) in ("E_TRUNCATED", "E_NOT_SLIDE")


def test_one_lost_tile_is_damage_and_not_a_truncation(tmp_path: Path) -> None:
    # OpenSlide hashes the coarsest level when it opens, so the damage must lie in another.
    path = write_tiff(tmp_path / "one.tif", gradient(1024, 1024), compression=None, levels=2)
    _, _, table, _ = tile_offsets(path)
    patch_table(path, table, 5, 1 << 31)
    assert open_slide(path).width_px == 1024


def test_a_tile_side_that_would_abort_the_process_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "huge.tif", gradient(512, 512))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        page.tags["TileWidth"].overwrite(65520)
        page.tags["TileLength"].overwrite(65520)
    assert code_of(path) == "E_TOO_LARGE"


def test_a_renamed_jpeg_is_no_slide(tmp_path: Path) -> None:
    path = tmp_path / "photo.svs"
    Image.fromarray(gradient(64, 64)).save(path, format="JPEG")
    assert code_of(path, mpp=0.5) == "E_NOT_SLIDE"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_plain_images_open_only_with_a_stated_scale(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(gradient(64, 80)).save(path, dpi=(300, 300))
    assert code_of(path) == "E_NO_MPP"
    assert open_slide(path, mpp=1.0).width_px == 80


@pytest.mark.parametrize("mode", ["L", "I;16", "P", "CMYK"])
def test_plain_images_that_are_not_rgb_are_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "grey.tif"
    Image.new(mode, (64, 64)).save(path)
    assert code_of(path, mpp=0.5) == "E_NOT_RGB"


def test_bounds_are_known_where_edge_tiles_are_missing(bounded_slide: Path) -> None:
    slide = open_slide(bounded_slide)
    assert slide.bounds == Box(256, 512, 512, 256)
    assert slide.whole == Box(0, 0, 1024, 1024)


def test_a_slide_is_a_value(data: Find) -> None:
    slide = open_slide(data("slides/CMU-1-Small-Region.svs"))
    assert pickle.loads(pickle.dumps(slide)) == slide
    again = pickle.loads(pickle.dumps(open_reader(slide)))
    assert again.slide == slide


def test_a_dicom_slide_is_all_files_of_its_series(data: Find) -> None:
    folder = data("slides/cmu1-dicom")
    first = open_slide(folder / "level-0-frames-0-30.dcm")
    other = open_slide(folder / "level-5-frames-0-1.dcm")
    assert len(first.files) == 12
    assert hash_slide(first.files) == hash_slide(other.files)


def test_the_hash_of_one_file_is_its_sha256(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "a.bin"
    path.write_bytes(b"x" * 3_000_000)
    assert hash_slide((path,)) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_unreadable_errors_are_value_errors_too() -> None:
    assert issubclass(SlideNotReadable, ValueError)
