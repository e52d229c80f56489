"""Scores of whole KolektorSDD images from maps at full size and at 256 x 256, on the training folds only.

    DEFECT_DATA_ROOT=... python experiments/tile_scores.py --train-fold 1 --fold 2

Features of three levels of a MobileNetV2 are compared with those of normal images of one fold, and the score of an
image is the highest value of its map or a mean of the highest ones. An image is found if its score is higher than those
of 95 % of the normal images of the other fold. The default test fold of ``KolektorSdd`` is 0.
"""

from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import timm
import torch
from common import PRETRAINED, data_root, markdown
from torch import Tensor
from torch.nn import functional as F

from anomalib_defect_plugins.core.image_io import read_image
from anomalib_defect_plugins.data.datasets.kolektor_sdd import Part, fold_of_group, read_parts

MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

KEPT = 40
"""Features of each normal image that others are compared with."""

HIGHEST = (1, 50, 200)
"""Numbers of the highest values of a map whose mean is a score."""

EVERY = 3
"""Every third normal image is used."""

RIDGE = 0.01
"""Added to the variance of each feature."""


def load(part: Part, size: int | None) -> Tensor:
    """Load an image, shape (1, 3, H, W), of ``size`` or padded to a multiple of 32."""
    image = torch.from_numpy(read_image(part.image)[0])[None]
    if size is not None:
        return F.interpolate(image, (size, size), mode="bilinear", antialias=True)
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")


def features(network: Any, image: Tensor) -> Tensor:
    """Return features, shape (D, h, w), at an eighth of the size of an image."""
    first, second, third = network((image - MEAN) / STD)
    third = F.interpolate(F.avg_pool2d(third, 3, 1, 1), second.shape[-2:], mode="bilinear")
    return torch.cat([F.avg_pool2d(first, 3, 2, 1), F.avg_pool2d(second, 3, 1, 1), third], 1)[0]


class Normal:
    """Normal features: one distribution for all positions, features of which the nearest is found, and positions.

    Args:
        maps: Features of the normal images, shape (D, h, w).
    """

    def __init__(self, maps: Iterator[Tensor]) -> None:
        number, total, squares, kept, self.maps = 0, 0, 0, [], []
        for values in maps:
            flat = values.flatten(1).double()
            number, total, squares = number + flat.shape[1], total + flat.sum(1), squares + flat @ flat.T
            kept.append(flat[:, torch.randperm(flat.shape[1])[:KEPT]].float())
            self.maps.append(values)
        mean = total / number
        covariance = squares / number - torch.outer(mean, mean) + RIDGE * torch.eye(len(mean))
        self.mean, self.whiten = mean.float(), torch.linalg.cholesky(torch.linalg.inv(covariance)).float()
        self.kept = torch.cat(kept, 1).T @ self.whiten

    def positions(self) -> None:
        """Compute a distribution for each position, as PaDiM does; images must have equal sizes."""
        maps = torch.stack(self.maps)
        self.mean_map = maps.mean(0)
        values = (maps - self.mean_map).flatten(2).permute(2, 1, 0)
        covariance = values @ values.transpose(1, 2) / (len(maps) - 1) + RIDGE * torch.eye(values.shape[1])
        self.inverse = torch.linalg.inv(covariance)

    def values(self, map_: Tensor, with_positions: bool) -> dict[str, Tensor]:
        """Return the anomaly values of features, by the name of the comparison."""
        rows = map_.flatten(1).T @ self.whiten
        values = {
            "one distribution": (rows - self.mean @ self.whiten).norm(dim=1),
            "nearest feature": torch.cat([torch.cdist(part, self.kept).amin(1) for part in rows.split(2000)]),
        }
        if with_positions:
            rest = (map_ - self.mean_map).flatten(1).T[:, None]
            values["a distribution for each position"] = (rest @ self.inverse @ rest.transpose(1, 2)).flatten().sqrt()
        return values


def evaluate(network: Any, train: list[Part], parts: list[Part], size: int | None) -> Iterator[dict[str, Any]]:
    """Yield the figures of each comparison and score."""
    torch.manual_seed(0)
    normal = Normal(features(network, load(part, size)) for part in train)
    if size is not None:
        normal.positions()
    normal.maps.clear()
    scores: dict[tuple[str, int], list[float]] = defaultdict(list)
    for part in parts:
        for name, values in normal.values(features(network, load(part, size)), size is not None).items():
            for number in HIGHEST:
                scores[name, number].append(float(values.topk(number).values.mean()))
    defective = np.array([part.defective for part in parts])
    for (name, number), found in scores.items():
        good, bad = np.array(found)[~defective], np.array(found)[defective]
        auroc = float((bad[:, None] > good).mean())
        count = f"{(bad > np.quantile(good, 0.95)).sum()} of {len(bad)}"
        where = "full size" if size is None else f"{size} x {size}"
        yield {"maps": where, "compared with": name, "highest": number, "image AUROC": auroc, "found": count}


@torch.no_grad()
def main() -> None:
    """Print the figures of both sizes."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--train-fold", type=int, default=1)
    parser.add_argument("--fold", type=int, default=2, help="fold of the evaluated images")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = timm.create_model(PRETRAINED, pretrained=True, features_only=True, out_indices=(1, 2, 3)).eval()
    parts = read_parts(data_root("kolektor_sdd"))
    folds = fold_of_group(parts)
    good = {fold: [part for part in parts if folds[part.group] == fold and not part.defective] for fold in range(3)}
    bad = [part for part in parts if folds[part.group] == options.fold and part.defective]
    train, evaluated = good[options.train_fold][::EVERY], [*good[options.fold][::EVERY], *bad]
    print(f"{len(train)} normal images for training, {len(evaluated) - len(bad)} normal and {len(bad)} cracked ones")
    print(markdown([row for size in (256, None) for row in evaluate(network, train, evaluated, size)]))


if __name__ == "__main__":
    main()
