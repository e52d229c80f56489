"""Train OneStage on the defects of each generator, test it on all others and on real ones, and print a table.

    DEFECT_DATA_ROOT=... HF_HOME=$DEFECT_DATA_ROOT/hf_home HF_HUB_OFFLINE=1 python experiments/generators/teachers.py

All images are training images of Magnetic Tile: 24 normal ones of other tiles than those trained on, on which each
generator draws, and the real defects of 40 tiles, which ``few_masks.py`` trains on. Half of the images of a batch have
a synthetic defect. A row is one run.
"""

import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import seed_everything
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))

from common import QUIET, add_run_options, create_engine, data_root, markdown, once, timed_fit, transformed
from one_class import auroc

from anomalib_defect_plugins import MagneticTile, OneStage, WithDefects
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.plugins.instantiate import build

GENERATORS = ["noise", "cutpaste", "cutpaste_scar", "poisson", "perturb", "shading", "procedural", "mixed"]
"""Generators that are trained on; all but ``mixed``, which draws from several of the others, are also tested on."""

HELD_OUT = 24
"""Number of normal images that defects are drawn on for the test."""


def create_data(generator: str) -> WithDefects:
    """Create the training data: half of the normal images get a defect."""
    base = MagneticTile(data_root("magnetic_tile"), train_batch_size=8, num_workers=0)
    data = WithDefects(base, real=40, per_object=1, train_on_real=False, synthetic=generator)
    data.setup(TrainerFn.FITTING)  # the engine keeps this split
    return data


def split(data: WithDefects) -> tuple[list[int], list[int]]:
    """Return the rows of the normal training images to train on, and of those held out, which are of other tiles."""
    groups = data.train_data.samples.group
    tiles = np.random.default_rng(0).permutation(groups.unique())
    held_out = next(tiles[:count] for count in range(len(tiles)) if groups.isin(tiles[:count]).sum() >= HELD_OUT)
    rows = groups.isin(held_out).to_numpy()
    return list(np.flatnonzero(~rows)), list(np.flatnonzero(rows)[:HELD_OUT])


def maps_of(model: OneStage, images: Tensor) -> Tensor:
    """Return the maps, shape (N, H, W)."""
    with torch.inference_mode():
        return torch.cat([model.model(image[None]).anomaly_map[0] for image in images])


def run(options: Namespace, generator: str, stem: Path) -> dict[str, float]:
    """Train on a generator, and return the pixel AUROC on each type of defect."""
    seed_everything(0)
    data = create_data(generator)
    training, held_out = split(data)
    normal = data.train_data.subsample(held_out)
    real = WithDefects(data.base, real=40, per_object=1)
    real.setup()
    defective = real.train_data.subsample(list(np.flatnonzero(real.train_data.samples.label_index == 1)))
    data.train_data.subsample(training, inplace=True)
    model = OneStage((options.size, options.size), iterations=options.iterations, **QUIET)
    timed_fit(create_engine(stem.parent / "models" / stem.name), model, data)
    model.cpu().eval()
    images = torch.cat([image for _, image, _ in transformed(model, normal)])
    metrics = {}
    for name in GENERATORS[:-1]:
        drawn, masks = build(DefectGenerator, name, "the generator")(images, torch.Generator().manual_seed(0))  # type: ignore[type-abstract]
        metrics[name] = auroc(maps_of(model, drawn), masks[:, 0].bool())
    others = [value for name, value in metrics.items() if name != generator]
    pairs: list[Any] = [(image[0], mask) for _, image, mask in transformed(model, defective)]
    maps = maps_of(model, torch.stack([image for image, _ in pairs]))
    metrics |= {"mean of the others": float(np.mean(others))}
    return metrics | {"real defects": auroc(maps, torch.stack([mask for _, mask in pairs]).bool())}


def main() -> None:
    """Run the missing runs, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generators", nargs="*", choices=GENERATORS, default=GENERATORS)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=400)
    add_run_options(parser, "results/teachers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for generator in options.generators:
        stem = options.out / f"{options.size}-{options.iterations}" / generator
        metrics = once(stem.with_suffix(".json"), partial(run, options, generator, stem))
        print(generator, metrics, flush=True)
        rows.append({"trained on": generator, **metrics})
    print(markdown(rows))


if __name__ == "__main__":
    main()
