"""A small generated data set in the layout of anomalib's ``Folder``: striped surfaces, spots, exact masks."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from anomalib.data import Folder
from PIL import Image
from skimage.draw import ellipse

IMAGE_SIZE = (72, 80)
"""Height and width in pixels: not square and not the size of the models under test, so that every run resizes."""


def write_folder_data(
    root: Path,
    image_size: tuple[int, int] = IMAGE_SIZE,
    normal: int = 8,
    normal_test: int = 4,
    defective: int = 4,
    seed: int = 0,
) -> None:
    """Write images and masks; equal arguments write equal files.

    Args:
        root: Folder to write to; its subfolders are ``normal``, ``normal_test``, ``defective`` and ``masks``.
        image_size: Height and width in pixels, at least 16.
        normal: Number of normal training images.
        normal_test: Number of normal test images.
        defective: Number of defective test images, each with a mask of the same name (0 and 255).
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    for folder, count in (("normal", normal), ("normal_test", normal_test), ("defective", defective)):
        for number in range(count):
            image = _surface(image_size, rng)
            if folder == "defective":
                mask = _spot(image_size, rng)
                image[mask] = 245
                _save(mask.astype(np.uint8) * 255, root / "masks" / f"{number:03}.png")
            _save(image, root / folder / f"{number:03}.png")


def folder_datamodule(root: Path, batch_size: int = 4) -> Folder:
    """Return a data module of the files that ``write_folder_data`` wrote; the test images are the validation images.

    Args:
        root: Folder with the files.
        batch_size: Batch size of training and evaluation.
    """
    return Folder(
        name="generated",
        root=root,
        normal_dir="normal",
        normal_test_dir="normal_test",
        abnormal_dir="defective",
        mask_dir="masks",
        train_batch_size=batch_size,
        eval_batch_size=batch_size,
        num_workers=0,
        val_split_mode="same_as_test",
        seed=0,
    )


def _surface(size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return an image of noisy stripes, shape (H, W, 3), uint8."""
    rows, columns = np.indices(size)
    stripes = np.sin((rows + 0.3 * columns) * 2 * np.pi / 9 + rng.uniform(0, 2 * np.pi))
    image = 120 + 30 * stripes[..., None] + rng.normal(0, 8, (*size, 3))
    pixels: npt.NDArray[np.uint8] = image.clip(0, 255).astype(np.uint8)
    return pixels


def _spot(size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return the mask of an ellipse, about a quarter of the image wide and high, shape (H, W), bool."""
    mask = np.zeros(size, dtype=bool)
    row, column = (rng.uniform(0.2, 0.8) * side for side in size)
    height, width = (rng.uniform(0.08, 0.16) * side for side in size)
    mask[ellipse(row, column, height, width, shape=size)] = True  # type: ignore[no-untyped-call]
    return mask


def _save(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
