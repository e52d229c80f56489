"""Uploaded images: what is read, and one-line errors for everything else."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.demo.services import uploads
from anomalib_defect_plugins.demo.services.uploads import check_count, read_painted_region, read_upload
from anomalib_defect_plugins.report.images import as_uri

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><image href="file:///etc/passwd"/></svg>'


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width: int, height: int) -> bytes:
    """Return a PNG file of a few bytes whose header states this size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def saved(path: Path, pixels: np.ndarray = PIXELS, kind: str | None = None) -> Path:
    Image.fromarray(pixels).save(path, kind)
    return path


def test_a_photo_is_read_pixel_by_pixel(tmp_path: Path) -> None:
    photo = read_upload(saved(tmp_path / "plate.PNG"))
    assert photo.name == "plate.PNG"
    assert photo.size == (48, 64)
    np.testing.assert_array_equal(photo.pixels, PIXELS)


@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm"])
def test_photos_of_all_accepted_formats_are_read(tmp_path: Path, ending: str) -> None:
    assert read_upload(saved(tmp_path / f"plate{ending}")).pixels.shape == (48, 64, 3)


def test_sixteen_bits_are_scaled_and_an_alpha_channel_is_dropped(tmp_path: Path) -> None:
    grey = np.full((40, 40), 65535 // 5, np.uint16)
    assert (read_upload(saved(tmp_path / "grey.png", grey)).pixels == 51).all()
    clear = np.dstack([PIXELS, np.zeros((48, 64), np.uint8)])
    np.testing.assert_array_equal(read_upload(saved(tmp_path / "clear.png", clear)).pixels, PIXELS)


def test_a_large_photo_is_resized_and_its_size_is_recorded(tmp_path: Path) -> None:
    photo = read_upload(saved(tmp_path / "large.png", np.zeros((1024, 4096), np.uint8)))
    assert photo.size == (1024, 4096)
    assert photo.pixels.shape == (512, 2048, 3)


def cut(path: Path, share: float = 0.6) -> None:
    saved(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "SVG": ("drawing.svg", lambda path: path.write_bytes(SVG), r"drawing\.svg does not have the suffix of a photo"),
    "SVG that is called PNG": ("x.png", lambda path: path.write_bytes(SVG), r"x\.png is not a PNG image, or is dam"),
    "text": ("notes.txt", lambda path: path.write_text("hello"), r"notes\.txt does not have the suffix of a photo"),
    "text that is called JPEG": ("x.jpg", lambda path: path.write_text("hello"), r"x\.jpg is not a JPEG image"),
    "an empty file": ("x.png", Path.touch, r"x\.png is not a PNG image"),
    "no ending": ("x", lambda path: saved(path, kind="PNG"), r"x does not have the suffix"),
    "PNG that is called JPEG": ("x.jpg", lambda path: saved(path, kind="PNG"), r"x\.jpg is a PNG image, not JPEG"),
    "GIF that is called PNG": (
        "x.png",
        lambda path: saved(path, kind="GIF"),
        r"x\.png is a GIF image, not PNG",
    ),
    "half a PNG": ("x.png", cut, r"x\.png cannot be decoded \("),
    "half a JPEG": ("x.jpg", cut, r"x\.jpg cannot be decoded \("),
    "the head of a TIFF": ("x.tif", lambda path: cut(path, 0.01), r"x\.tif (is not a TIFF|cannot be decoded)"),
    "a bomb": ("x.png", lambda path: path.write_bytes(bomb(60000, 60000)), r"x\.png has more than 40 million pixels"),
    "a small bomb": ("x.png", lambda path: path.write_bytes(bomb(9000, 9000)), r"x\.png has 9000x9000 pixels, more"),
    "a line": ("x.png", lambda path: saved(path, PIXELS[:4]), r"x\.png has 64x4 pixels; use an image of 32"),
    "floats": ("x.tif", lambda path: saved(path, np.full((40, 40), 9, np.float32)), r"cannot be decoded \(.*floating"),
    "a photo of a phone": ("x.HEIC", Path.touch, r"x\.HEIC has a format that is not read; convert it to PNG or JPEG"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_files_are_reported_in_one_line_without_folders_of_the_server(tmp_path: Path, case: str) -> None:
    name, make, line = REFUSED[case]
    path = tmp_path / name
    make(path)
    with pytest.raises(InvalidInputError, match=line) as error:
        read_upload(path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_a_file_that_is_too_large_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.png")
    monkeypatch.setattr(uploads, "MAX_BYTES", path.stat().st_size - 1)
    monkeypatch.setattr(Image, "open", lambda *arguments, **named: pytest.fail("the file was opened"))
    with pytest.raises(InvalidInputError, match=r"x\.png has 0 MB, more than"):
        read_upload(path)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"x\.png is no longer on the server; upload it again"):
        read_upload(tmp_path / "x.png")


def test_too_many_images_are_refused() -> None:
    check_count(["x.png"] * 400)
    with pytest.raises(InvalidInputError, match="401 images are too many at a time; choose 400 at most"):
        check_count(["x.png"] * 401)


def painted(kind: str = "PNG", size: tuple[int, int] = (64, 48)) -> str:
    """Paint the left half of an image of this width and height, as the page does."""
    layer = Image.new("RGBA", size)
    layer.paste((0, 200, 255, 255), (0, 0, size[0] // 2, size[1]))
    buffer = io.BytesIO()
    layer.save(buffer, kind)
    return as_uri(buffer.getvalue(), f"image/{kind.lower()}")


def test_a_painted_region_is_read_pixel_by_pixel() -> None:
    assert not read_painted_region("", (48, 64)).any()
    region = read_painted_region(painted(), (48, 64))
    assert region[:, :32].all()
    assert not region[:, 32:].any()


@pytest.mark.parametrize(
    "value",
    [painted(size=(64, 47)), painted("WEBP"), painted("WEBP").replace("webp", "png"), painted()[:-40], "x", 3, ["x"],
     painted() + " " * 2**22, as_uri(SVG, "image/png"), as_uri(bomb(60000, 60000), "image/png"),
     {"path": "/etc/passwd"}, "file:///etc/passwd"],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_an_invalid_painted_region_is_reported(value: object) -> None:
    with pytest.raises(InvalidInputError, match="the painted region cannot be read; paint it again"):
        read_painted_region(value, (48, 64))
