"""Draw a contact sheet of the defect generators on the three textures of TextureDefects.

    python experiments/generators/sheet.py --columns 2 --tile 128 --out docs/generators.jpg

The first row shows the normal images. Each generator has two rows: the defective images, and the same images with the
outline of the mask in red.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from anomalib.data.utils import Split
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation
from skimage import data as photographs
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datasets.texture_defects import CATEGORIES, CROP, draw_sample, region, soften
from anomalib_defect_plugins.generators import (
    CutPasteDefects,
    CutPasteScarDefects,
    DefectGenerator,
    NoiseDefects,
    PerturbDefects,
    PoissonDefects,
    ProceduralDefects,
)

GENERATORS = (
    NoiseDefects,
    CutPasteDefects,
    CutPasteScarDefects,
    PoissonDefects,
    PerturbDefects,
    ProceduralDefects,
)
GAP = 4
LABEL = 20


def normal_images(category: str, columns: int) -> Tensor:
    """Return crops (columns, 3, 256, 256) of the training half of a texture."""
    rng = np.random.default_rng(0)
    texture = region(soften(getattr(photographs, category)().astype(np.float32) / 255), Split.TRAIN)
    crops = [draw_sample(texture, GOOD, CROP, rng)[0] for _ in range(columns)]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


def draw(generator: DefectGenerator, batches: list[Tensor], seed: int) -> tuple[Tensor, Tensor]:
    """Draw on a batch of each texture; return all defective images and masks."""
    rng = torch.Generator().manual_seed(seed)
    defective, masks = zip(*(generator(batch, rng) for batch in batches), strict=True)
    return torch.cat(defective), torch.cat(masks)


def outlined(images: Tensor, masks: Tensor) -> Tensor:
    """Return the images (B, 3, H, W) with a red outline of their masks (B, 1, H, W)."""
    result = images.clone()
    for image, mask in zip(result, masks[:, 0].numpy(), strict=True):
        line = torch.from_numpy(binary_dilation(mask, iterations=3) & ~binary_dilation(mask, iterations=2))
        image[:, line] = torch.tensor([[1.0], [0.0], [0.0]])
    return result


def strip(images: Tensor, side: int) -> np.ndarray:
    """Return images (B, 3, H, W) side by side, resized to ``side`` pixels, uint8."""
    images = resize(images, [side, side], antialias=True).clamp(0, 1)
    tiles = np.round(images.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    return np.concatenate([np.pad(tile, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for tile in tiles], axis=1)


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="path of the image; the suffix sets its format")
    parser.add_argument("--columns", type=int, default=3, help="number of images per texture")
    parser.add_argument("--tile", type=int, default=CROP, help="side of each image in pixels")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    batches = [normal_images(category, arguments.columns) for category in CATEGORIES]
    tile = arguments.tile
    rows = [("normal", strip(torch.cat(batches), tile))]
    for generator in GENERATORS:
        defective, masks = draw(generator(), batches, arguments.seed)
        rows.append((generator.name, strip(defective, tile)))
        rows.append((f"{generator.name}, mask", strip(outlined(defective, masks), tile)))
    height, width, _ = rows[0][1].shape
    sheet = Image.new("RGB", (width, len(rows) * (height + LABEL)), "white")
    for number, (name, pixels) in enumerate(rows):
        top = number * (height + LABEL)
        ImageDraw.Draw(sheet).text((4, top + 4), name, fill="black")
        sheet.paste(Image.fromarray(pixels), (0, top + LABEL))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.out)


if __name__ == "__main__":
    main()
