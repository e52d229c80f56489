"""Measure settings of SIDN on validation images, which choose them: no test image is read.

    DEFECT_DATA_ROOT=... python experiments/sidn/validation.py --data magnetic_tile kolektor_sdd --sidn channels=8
    python experiments/sidn/validation.py --data brick grass gravel --sidn channels=8

Magnetic Tile: all photographs of the 40 tiles that OneStage trains on (seed 0), and of a sixth of the other tiles with
normal ones. KolektorSDD: a third of the normal images of folds 1 and 2, and their cracked ones. A category of
TextureDefects: its validation images. Prints metrics of the map and of its two parts, the log-odds of the branches and
the distances of the densities; image AUROC is that of the spread of each. The trained models are kept.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from lightning import seed_everything
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))

from common import QUIET, add_run_options, create_engine, data_root, markdown, timed_fit, transformed
from one_class import compute_metrics, settings

from anomalib_defect_plugins import KolektorSdd, MagneticTile, Sidn, TextureDefects, WithDefects
from anomalib_defect_plugins.data.datasets.texture_defects import CATEGORIES
from anomalib_defect_plugins.layers import spread

PARTS = ("map", "branches", "distances")


def magnetic_tile(options: Namespace) -> tuple[AnomalibDataModule, list[AnomalibDataset]]:
    """Return the data to train on, and the validation images."""

    def base() -> MagneticTile:
        split = {"val_split_mode": "from_train", "val_split_ratio": 1 / 6}
        sizes = {"train_batch_size": options.batch, "num_workers": options.workers}
        return MagneticTile(data_root("magnetic_tile"), **split, **sizes)  # type: ignore[arg-type]

    everything, data = base(), WithDefects(base(), held_out=40, per_object=1, seed=0)
    for module in (everything, data):
        module.prepare_data()
        module.setup()
    splits = (data.train_data, data.val_data, data.test_data)
    used = set(pd.concat([split.samples.image_path for split in splits]))
    held_out = []
    for split in (everything.train_data, everything.val_data, everything.test_data):
        rows = [row for row, path in enumerate(split.samples.image_path) if path not in used]
        held_out.append(split.subsample(rows))
    return data, [data.val_data, *held_out]


def kolektor_sdd(options: Namespace) -> tuple[AnomalibDataModule, list[AnomalibDataset]]:
    """Return the data to train on, and the validation images."""
    split = {"val_split_mode": "from_train", "val_split_ratio": 1 / 3}
    sizes = {"train_batch_size": options.batch, "num_workers": options.workers}
    data = KolektorSdd(data_root("kolektor_sdd"), dilation=9, image_size=None, **split, **sizes)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    return data, [data.val_data, cast(AnomalibDataset, data.train_defects)]


def texture(category: str, options: Namespace) -> tuple[AnomalibDataModule, list[AnomalibDataset]]:
    """Return the data to train on, and the validation images."""
    data = TextureDefects(category=category, train_batch_size=options.batch, num_workers=options.workers)
    data.prepare_data()
    data.setup()
    return data, [data.val_data]


REAL = {"magnetic_tile": (magnetic_tile, [256, 256]), "kolektor_sdd": (kolektor_sdd, [640, 256])}
"""Real data and their image sizes."""


@torch.no_grad()
def predict(model: Sidn, datasets: list[AnomalibDataset]) -> dict[str, dict[str, Tensor]]:
    """Return the scores, labels, maps and masks of all images, by the part of the map; scores are those of the part."""
    found: dict[str, Tensor] = {}
    network: Any = model.model
    network.density.register_forward_hook(lambda *call: found.update(distances=call[-1]))
    network.median.register_forward_pre_hook(lambda _, inputs: found.update(sum=inputs[0]))
    rows = []
    for dataset in datasets:
        for item, image, mask in transformed(model, dataset):
            output = network(image)
            branches = found["sum"] - network.density_weight * found["distances"]
            maps = (output.anomaly_map, branches, found["distances"])
            empty = torch.zeros(image.shape[-2:], dtype=torch.bool)
            row = (torch.tensor([bool(item.gt_label)]), empty if mask is None else mask.bool())
            rows.append((*row, *(one.cpu().reshape(empty.shape) for one in maps)))
    labels, masks, *maps = zip(*rows, strict=True)
    shared = {"labels": torch.cat(labels), "masks": torch.stack(masks)}
    predictions = {}
    for part, values in zip(PARTS, maps, strict=True):
        stacked = torch.stack(values)
        predictions[part] = {**shared, "scores": spread(stacked[:, None]), "maps": stacked}
    return predictions


def run(options: Namespace, name: str) -> Iterator[dict[str, object]]:
    """Train on one data set, and yield a row for each part of the map."""
    seed_everything(options.seed)
    data, validation = REAL[name][0](options) if name in REAL else texture(name, options)
    image_size = {"image_size": REAL[name][1]} if name in REAL else {}
    model = Sidn(**(image_size | settings(options.sidn)), **QUIET)
    seconds = timed_fit(create_engine(options.out / name, options.precision), model, data)
    for part, predictions in predict(model.cpu(), validation).items():
        labels = predictions["labels"]
        counts = {"images": len(labels), "defective": int(labels.sum()), "train s": round(seconds)}
        yield {"data": name, "part": part, **compute_metrics(predictions), **counts}


def main() -> None:
    """Train on each data set, and print a table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", choices=[*REAL, *CATEGORIES], default=["magnetic_tile"])
    parser.add_argument("--sidn", nargs="*", default=[], metavar="NAME=VALUE", help="arguments of SIDN")
    parser.add_argument("--batch", type=int, default=8, help="training images of a step")
    parser.add_argument("--seed", type=int, default=0)
    add_run_options(parser, "results/sidn_validation")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.data:
        rows += list(run(options, name))
        print(rows[-len(PARTS) :], flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
