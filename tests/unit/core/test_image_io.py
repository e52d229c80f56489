"""Image files of every format become three float channels in [0, 1]; tests/unit/data checks it through data sets."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from anomalib.data.utils import read_image as read_as_anomalib
from image_samples import SAMPLES, SEVERAL_PAGES, SHAPE, TURNED
from PIL import Image

from anomalib_defect_plugins.core.image_io import check_image, is_read_otherwise, read_image, read_size

GREY = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
FULL = np.arange(6, dtype=np.float32).reshape(2, 3) / 5
"""``GREY`` in [0, 1]."""

ORDINARY = {
    "png-8-bits-rgb",
    "png-1-bit",
    "tiff-8-bits-rgb-deflate",
    "tiff-8-bits-planar",
    "jfif",
    "gif",
    "bmp",
    "webp",
}

COLOURS = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
ALPHA = np.array([[0, 255, 128], [1, 254, 0]], np.uint8)


def save(path: Path, values: npt.NDArray[Any]) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("order", ["C", "K"])
def test_8_bit_colours_are_divided_by_255_in_either_memory_order(tmp_path: Path, order: Literal["C", "K"]) -> None:
    image, width, height = read_image(save(tmp_path / "a.png", COLOURS), order=order)
    assert (image.dtype, width, height) == (np.float32, 3, 2)
    assert image.flags.c_contiguous == (order == "C")
    np.testing.assert_allclose(image, COLOURS.transpose(2, 0, 1) / 255, rtol=1e-6)


@pytest.mark.parametrize("values", [GREY, np.arange(6, dtype=np.uint16).reshape(2, 3) * 13107], ids=["8 bit", "16 bit"])
def test_grey_is_scaled_from_its_full_range_and_repeated(tmp_path: Path, values: npt.NDArray[Any]) -> None:
    # 65535 / 5 = 13107
    image, *_ = read_image(save(tmp_path / "a.png", values))
    np.testing.assert_allclose(image, np.stack([FULL] * 3), rtol=1e-6)


def test_an_alpha_channel_is_dropped(tmp_path: Path) -> None:
    image, *_ = read_image(save(tmp_path / "a.png", np.dstack([COLOURS, ALPHA])))
    np.testing.assert_allclose(image, COLOURS.transpose(2, 0, 1) / 255, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"transparency": 0}])
def test_a_palette_becomes_its_colours(tmp_path: Path, options: dict[str, Any]) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 51, 0])
    image.save(tmp_path / "a.png", **options)
    values, *_ = read_image(tmp_path / "a.png")
    np.testing.assert_allclose(values, [[[1, 0]], [[0, 0.2]], [[0, 0]]], rtol=1e-6)


@pytest.mark.parametrize("name", SAMPLES)
def test_values_are_scaled_by_the_depth_of_the_file(tmp_path: Path, name: str) -> None:
    sample = SAMPLES[name]
    path = sample.create(tmp_path)
    image, width, height = read_image(path)
    assert (image.shape, image.dtype) == ((3, *SHAPE), np.float32)
    np.testing.assert_allclose(image, sample.expected(), rtol=0, atol=sample.tolerance)
    assert (height, width) == SHAPE
    assert read_size(path) == check_image(path) == (width, height)


@pytest.mark.parametrize("name", TURNED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_orientation_tag_says(tmp_path: Path, name: str, orientation: int) -> None:
    sample = TURNED[name](orientation)
    path = sample.create(tmp_path)
    image, width, height = read_image(path)
    np.testing.assert_allclose(image, sample.expected(), rtol=0, atol=sample.tolerance)
    assert read_size(path) == check_image(path) == (width, height) == SHAPE[::-1]


@pytest.mark.parametrize("name", [*SAMPLES, *TURNED])
def test_it_is_known_where_anomalib_reads_other_pixels(tmp_path: Path, name: str) -> None:
    sample = SAMPLES[name] if name in SAMPLES else TURNED[name](6)
    path = sample.create(tmp_path)
    try:
        theirs = read_as_anomalib(path, as_tensor=True).numpy()
    except (OSError, ValueError):
        assert is_read_otherwise(path)
        return
    ours, *_ = read_image(path)
    if not is_read_otherwise(path):
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert name not in ORDINARY


def test_damaged_metadata_turn_nothing(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=b"Exif\0\0no metadata")
    image, width, height = read_image(tmp_path / "a.png")
    assert (image.shape, width, height) == ((3, 2, 3), 3, 2)
    assert read_size(tmp_path / "a.png") == (3, 2)


@pytest.mark.parametrize("name", SEVERAL_PAGES)
def test_a_file_with_several_pages_is_refused(tmp_path: Path, name: str) -> None:
    suffix, write = SEVERAL_PAGES[name]
    write(tmp_path / f"a{suffix}")
    for read in (read_image, check_image):
        with pytest.raises(ValueError, match=r"it has 3 pages or frames.*save each page as a file of its own"):
            read(tmp_path / f"a{suffix}")


def test_further_pictures_of_a_photo_and_previews_of_a_page_do_not_count(tmp_path: Path) -> None:
    photo, preview = Image.fromarray(COLOURS), Image.fromarray(COLOURS[:1])
    photo.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(COLOURS, photometric="rgb")
        file.write(COLOURS[::2, ::2], photometric="rgb", subfiletype=1)
    for name in ("a.jpg", "a.tif"):
        assert read_image(tmp_path / name)[1:] == check_image(tmp_path / name) == (3, 2)


def test_colours_of_the_lab_space_and_of_print_become_rgb(tmp_path: Path) -> None:
    # White, mid grey and red; L* in steps of 2.55, a* and b* signed.
    lab = np.array([[[255, 0, 0], [136, 0, 0], [136, 80, 67]]], np.uint8)
    Image.frombytes("LAB", (3, 1), lab.tobytes()).save(tmp_path / "a.tif")
    image, *_ = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(image.transpose(1, 2, 0)[0], [[1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0]], atol=0.05)
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "b.tif")
    np.testing.assert_allclose(read_image(tmp_path / "b.tif")[0], COLOURS.transpose(2, 0, 1) / 255, rtol=1e-6)


def test_a_preview_without_its_image_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype("u2"), subfiletype=1)
    with pytest.raises(ValueError, match="its first page is only a preview"):
        read_image(tmp_path / "a.tif")


def test_the_limit_of_pillow_applies_to_files_that_it_cannot_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 20), "u2"), bitspersample=10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.warns(Image.DecompressionBombWarning):
        read_image(tmp_path / "a.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        read_image(tmp_path / "a.tif")


def test_integers_that_need_32_bits_are_scaled_by_all_of_them(tmp_path: Path) -> None:
    values = (FULL.astype(float) * (2**32 - 1)).round().astype(np.uint32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif")[0], np.stack([FULL] * 3), rtol=1e-6)


@pytest.mark.parametrize("values", [COLOURS, GREY, GREY.astype(np.uint16) * 257], ids=["colour", "grey", "16 bit"])
def test_an_image_is_resized_to_height_and_width(tmp_path: Path, values: npt.NDArray[Any]) -> None:
    image, width, height = read_image(save(tmp_path / "a.png", values), size=(4, 5))
    assert (image.shape, width, height) == ((3, 4, 5), 3, 2)
    assert 0 <= image.min() <= image.max() <= 1


def test_the_size_of_the_file_changes_no_pixel(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", COLOURS)
    np.testing.assert_array_equal(read_image(path, size=(2, 3))[0], read_image(path)[0])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (FULL * 255, r"its floating-point values are 0 to 255, beyond its range of 0 to 1; save it with 16 bits"),
        (FULL - 0.5, "its floating-point values are -0.5 to 0.5"),
        (np.where(FULL > 0.9, np.nan, FULL), "its floating-point values are nan to nan"),
        (np.array([[70000, 0]], np.int32), "its integer values are 0 to 70000, beyond its range of 0 to 65535"),
        (np.array([[-1, 5]], np.int16), "its integer values are -1 to 5, beyond its range of 0 to 32767"),
        (np.zeros((2, 3, 5), np.uint16), r"its colours \(MINISBLACK, 5 channels of 16 bits\) are not read"),
    ],
)
def test_values_without_a_known_range_are_refused(tmp_path: Path, values: npt.NDArray[Any], reason: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    for read in (read_image, check_image):
        with pytest.raises(ValueError, match=reason):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_truncated_deep_file_is_damaged(tmp_path: Path, share: float, compression: str | None) -> None:
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(0, 4096, (64, 64), "u2"), compression=compression)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: int(share * len(content))])
    with pytest.raises(Exception, match=r".+"):
        read_image(tmp_path / "a.tif")


def test_a_tiff_whose_first_page_is_a_preview_is_refused(tmp_path):
    full = np.zeros((48, 32), np.uint8)
    with tifffile.TiffWriter(tmp_path / "preview.tif") as file:
        file.write(full[::2, ::2], subfiletype=1)
        file.write(full)
    for read in (read_image, check_image):
        with pytest.raises(ValueError, match="its first page is only a preview"):
            read(tmp_path / "preview.tif")
