"""Cut windows out of Magnetic Tile at its original resolution, in which defects are larger, to train Defect-GAN.

    DEFECT_DATA_ROOT=... python experiments/defectgan/windows.py --out windows

In a whole tile at 64x64 pixels, a blowhole is a few pixels large. A window has a fixed size and shows a defect or a
part of one. Writes two folders in the layout of ``DefectFolder``: ``train``, windows of the training tiles of
``WithDefects(MagneticTile(), real=0.7)``, and ``test``, windows of all others, so no tile is in both.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
from anomalib.data import AnomalibDataset
from PIL import Image
from rich.progress import track

sys.path.append(str(Path(__file__).parents[1]))

from common import data_root

from anomalib_defect_plugins.data import MagneticTile, WithDefects
from anomalib_defect_plugins.data.dataclasses import GOOD

MIN_PIXELS, MAX_SHARE = 20, 0.7
"""Minimum number of defect pixels in a window of a defect, and their maximum fraction."""

MAX_TRIES = 100
"""Number of random windows tried per image; a defect that fills most of them has fewer windows."""


def windows(dataset: AnomalibDataset, root: Path, side: int, out: int, num: int, seed: int) -> None:
    """Write windows of all images of a split.

    Args:
        dataset: Data set of the split.
        root: Folder to write to; gets a folder for each type, and ``masks``.
        side: Height and width of a window in the original image, in pixels.
        out: Height and width of the written images, in pixels.
        num: Number of windows per defective image; a normal image has one.
        seed: Seed of the locations.
    """
    rng = np.random.default_rng(seed)
    for row in track(list(dataset.samples.itertuples()), description=root.name):
        image = Image.open(row.image_path).convert("L")
        normal = row.defect_type == GOOD
        mask = np.zeros(image.size[::-1], bool) if normal else np.array(Image.open(row.mask_path).convert("L")) > 127
        if normal == mask.any():
            continue  # published without a mask
        corners = ((top, left) for top, left in _corners(mask, side, rng) if normal or _shows(mask, side, top, left))
        for number, (top, left) in zip(range(1 if normal else num), corners, strict=False):
            box = (left, top, left + side, top + side)
            name = f"{Path(row.image_path).stem}_{number}.png"
            _save(image.crop(box).resize((out, out), Image.Resampling.LANCZOS), root / row.defect_type / name)
            if not normal:
                marks = Image.fromarray(mask).crop(box).convert("L").resize((out, out), Image.Resampling.BOX)
                _save(marks.point(lambda value: 255 * (value > 63)), root / "masks" / row.defect_type / name)


def _corners(mask: npt.NDArray[np.bool_], side: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw corners of windows around pixels of the defect, at a distance from the sides; anywhere if there is none."""
    pixels = np.argwhere(mask) if mask.any() else np.argwhere(~mask)
    chosen = pixels[rng.integers(len(pixels), size=MAX_TRIES)]
    chosen = chosen - rng.integers(side // 6, side - side // 6, (MAX_TRIES, 2))
    return [tuple(corner) for corner in chosen.clip(0, np.array(mask.shape) - side).tolist()]


def _shows(mask: npt.NDArray[np.bool_], side: int, top: int, left: int) -> bool:
    window = mask[top : top + side, left : left + side]
    return bool(window.sum() >= MIN_PIXELS and window.mean() <= MAX_SHARE)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def main() -> None:
    """Write both folders."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, default=96, help="side of a window in pixels; tiles have at least 103")
    parser.add_argument("--size", type=int, default=64, help="side of the written images in pixels")
    parser.add_argument("--num", type=int, default=8, help="windows per defective image")
    options = parser.parse_args()
    data = WithDefects(MagneticTile(data_root("magnetic_tile"), num_workers=0), real=0.7)
    data.setup()
    for seed, (name, dataset) in enumerate({"train": data.train_data, "test": data.test_data}.items()):
        windows(dataset, options.out / name, options.side, options.size, options.num, seed)


if __name__ == "__main__":
    main()
