"""A small generated data set in the layout of anomalib's ``Folder``: striped surfaces, and spots with exact masks."""

from pathlib import Path

import numpy as np
from anomalib.data import Folder
from PIL import Image
from skimage.draw import ellipse

IMAGE_SIZE = (72, 80)
"""Neither square nor the size that the contract's models work at, so that every run has to resize."""


def write_folder_data(
    root: Path,
    image_size: tuple[int, int] = IMAGE_SIZE,
    normal: int = 8,
    normal_test: int = 4,
    defective: int = 4,
    seed: int = 0,
) -> None:
    """Write the images and masks, the same for the same arguments.

    Args:
        root: Folder to write to; gets ``normal``, ``normal_test``, ``defective`` and ``masks``.
        image_size: Height and width, in pixels, at least 16.
        normal: Number of normal images for training.
        normal_test: Number of normal images for test.
        defective: Number of defective images, each with a mask of the same name (0 and 255).
        seed: Seed of everything random in them.
    """
    generator = np.random.default_rng(seed)
    for folder, count in (("normal", normal), ("normal_test", normal_test), ("defective", defective)):
        for number in range(count):
            image = _surface(image_size, generator)
            if folder == "defective":
                mask = _spot(image_size, generator)
                image[mask] = 245
                _save(mask.astype(np.uint8) * 255, root / "masks" / f"{number:03}.png")
            _save(image, root / folder / f"{number:03}.png")


def folder_datamodule(root: Path, batch_size: int = 4) -> Folder:
    """Return a data module on what ``write_folder_data`` wrote to ``root``, validated on its test images.

    Args:
        root: The folder.
        batch_size: Images in a batch, in training and evaluation.
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


def _surface(size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Return an image of noisy stripes, (H, W, 3), uint8."""
    rows, columns = np.indices(size)
    stripes = np.sin((rows + 0.3 * columns) * 2 * np.pi / 9 + generator.uniform(0, 2 * np.pi))
    image = 120 + 30 * stripes[..., None] + generator.normal(0, 8, (*size, 3))
    return image.clip(0, 255).astype(np.uint8)


def _spot(size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Return the mask of an ellipse about an eighth of the image wide, (H, W), bool."""
    mask = np.zeros(size, dtype=bool)
    row, column = (generator.uniform(0.2, 0.8) * side for side in size)
    height, width = (generator.uniform(0.08, 0.16) * side for side in size)
    mask[ellipse(row, column, height, width, shape=size)] = True  # type: ignore[no-untyped-call]
    return mask


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
