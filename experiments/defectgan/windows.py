"""Cut windows out of Magnetic Tile at its own resolution, for Defect-GAN to learn from: they show its defects larger.

    DEFECT_DATA_ROOT=... python experiments/defectgan/windows.py --out windows

A whole tile at 64x64 pixels leaves a handful of pixels of a blowhole. A window has a fixed side, and shows a defect or
a part of one. Writes two folders that ``DefectFolder`` reads: ``train``, windows of the tiles that train with
``WithDefects(MagneticTile(), real=0.7)``, and ``test``, windows of all others. So no tile is in both.
"""

import os
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
from anomalib.data import AnomalibDataset
from PIL import Image
from rich.progress import track

from anomalib_defect_plugins.data import MagneticTile, WithDefects
from anomalib_defect_plugins.data.dataclasses import GOOD

LEAST, MOST = 20, 0.7
"""A window of a defect has so many pixels of it at least, and at most such a share."""

TRIES = 100
"""So often a window is looked for; a defect that leaves no room for another surface has fewer windows."""


def windows(dataset: AnomalibDataset, root: Path, side: int, out: int, num: int, seed: int) -> None:
    """Write windows of all images of a split.

    Args:
        dataset: The split.
        root: Folder to write to: a folder for each type, and ``masks``.
        side: Height and width that are cut out, in pixels.
        out: Height and width that are written, in pixels.
        num: Windows of each defective image; one normal image has one.
        seed: Seed of the places.
    """
    rng = np.random.default_rng(seed)
    for row in track(list(dataset.samples.itertuples()), description=root.name):
        image = Image.open(row.image_path).convert("L")
        normal = row.defect_type == GOOD
        mask = np.zeros(image.size[::-1], bool) if normal else np.array(Image.open(row.mask_path).convert("L")) > 127
        if normal == mask.any():
            continue  # published without a mask
        places = ((top, left) for top, left in _places(mask, side, rng) if normal or _shows(mask, side, top, left))
        for number, (top, left) in zip(range(1 if normal else num), places, strict=False):
            box = (left, top, left + side, top + side)
            name = f"{Path(row.image_path).stem}_{number}.png"
            _save(image.crop(box).resize((out, out), Image.Resampling.LANCZOS), root / row.defect_type / name)
            if not normal:
                marks = Image.fromarray(mask).crop(box).convert("L").resize((out, out), Image.Resampling.BOX)
                _save(marks.point(lambda value: 255 * (value > 63)), root / "masks" / row.defect_type / name)


def _places(mask: np.ndarray, side: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw corners of windows: around pixels of the defect, none too near to the side; anywhere if there is none."""
    pixels = np.argwhere(mask) if mask.any() else np.argwhere(~mask)
    chosen = pixels[rng.integers(len(pixels), size=TRIES)] - rng.integers(side // 6, side - side // 6, (TRIES, 2))
    return [tuple(corner) for corner in chosen.clip(0, np.array(mask.shape) - side).tolist()]


def _shows(mask: np.ndarray, side: int, top: int, left: int) -> bool:
    window = mask[top : top + side, left : left + side]
    return window.sum() >= LEAST and window.mean() <= MOST


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def main() -> None:
    """Write both folders."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, default=96, help="pixels that are cut out; tiles have 103 at least")
    parser.add_argument("--size", type=int, default=64, help="pixels that are written")
    parser.add_argument("--num", type=int, default=8, help="windows of a defective image")
    options = parser.parse_args()
    data = WithDefects(MagneticTile(Path(os.environ["DEFECT_DATA_ROOT"]) / "magnetic_tile", num_workers=0), real=0.7)
    data.setup()
    for seed, (name, dataset) in enumerate({"train": data.train_data, "test": data.test_data}.items()):
        windows(dataset, options.out / name, options.side, options.size, options.num, seed)


if __name__ == "__main__":
    main()
