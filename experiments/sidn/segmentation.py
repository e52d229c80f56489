"""Draw segmentation results of a trained SIDN, as in figure 5 of the paper.

    python experiments/sidn/segmentation.py results/Sidn/TextureDefects/brick/latest/weights/lightning/model.ckpt \
        --data "TextureDefects: {category: brick}" --out brick.png

A column is a defective test image, of each type in turn: image, mask, segmentation (at the model's threshold, after the
median filter and ``mask_opening``), anomaly map, and the nearest cluster centre of each position in both branches.
Figures 3 and 4 of the paper are drawings of blocks: ``make_sm`` and ``GlobalSemanticRelation`` of
``anomalib_defect_plugins.models.sidn.torch_model``.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from anomalib.data import AnomalibDataModule
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import transformed

from anomalib_defect_plugins import Sidn
from anomalib_defect_plugins.models.sidn.loss import squared_distances
from anomalib_defect_plugins.models.sidn.separation import separated_features
from anomalib_defect_plugins.plugins.instantiate import build

TILE = 128
GAP = 4


def choose(types: npt.NDArray[Any], count: int) -> list[int]:
    """Return the indices of defective images, of each type in turn."""
    kinds = [np.flatnonzero(types == kind).tolist() for kind in sorted(set(types) - {"good"})]
    return [kind[turn] for turn in range(len(types)) for kind in kinds if turn < len(kind)][:count]


def tile(values: Tensor, colours: str) -> Image.Image:
    """Colour values (H, W) in [0, 1]."""
    pixels = colormaps[colours](values.cpu().numpy())[..., :3]
    return Image.fromarray((pixels * 255).astype(np.uint8)).resize((TILE, TILE), Image.Resampling.NEAREST)


@torch.no_grad()
def column(model: Sidn, image: Tensor, mask: Tensor) -> list[Image.Image]:
    """Draw the tiles of an image (1, 3, H, W) and its mask (H, W)."""
    prediction: Any = model.post_processor(model.model(image))  # type: ignore[misc]
    size = image.shape[-2:]
    clusters = []
    for branch, features in zip(
        (model.model.texture, model.model.defect), separated_features(model.model, image), strict=True
    ):
        nearest = squared_distances(features, branch.centers).argmin(-1).reshape(1, 1, size[0] // 16, size[1] // 16)
        clusters.append(interpolate(nearest.float() / len(branch.centers), size)[0, 0])
    grey = image[0].mean(0)
    return [
        tile(grey, "gray"),
        tile(mask.float(), "gray"),
        tile(prediction.pred_mask.reshape(size).float(), "gray"),
        tile(prediction.anomaly_map.reshape(size).clamp(0, 1), "inferno"),
        *(tile(cluster, "tab20") for cluster in clusters),
    ]


def main() -> None:
    """Draw the figure."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", required=True, help="data module and its arguments, in YAML")
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("segmentation.png"))
    options = parser.parse_args()
    given = yaml.safe_load(options.data)
    name, arguments = next(iter(given.items())) if isinstance(given, dict) else (given, {})
    configuration = {"class_path": name, "init_args": arguments or {}}
    data = build(AnomalibDataModule, configuration, "--data")  # type: ignore[type-abstract]
    data.prepare_data()
    data.setup("test")
    model = Sidn.load_from_checkpoint(options.checkpoint, map_location="cpu")
    samples = data.test_data.samples
    types = (samples.defect_type if "defect_type" in samples else samples.label).to_numpy()
    dataset = data.test_data.subsample(choose(types, options.columns))
    columns = [
        column(model, image, torch.zeros(image.shape[-2:]) if mask is None else mask)
        for _, image, mask in transformed(model, dataset)
    ]
    step = TILE + GAP
    sheet = Image.new("RGB", (step * len(columns) - GAP, step * len(columns[0]) - GAP), "white")
    for x, tiles in enumerate(columns):
        for y, one in enumerate(tiles):
            sheet.paste(one, (x * step, y * step))
    sheet.save(options.out)
    print(options.out)


if __name__ == "__main__":
    main()
