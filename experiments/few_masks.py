"""What a few pixel masks buy: OneStage on real masks of Magnetic Tile beside the one-class methods, same test images.

    DEFECT_DATA_ROOT=... python experiments/one_class.py --data magnetic_tile      # first, for the one-class rows
    DEFECT_DATA_ROOT=... python experiments/few_masks.py --masks 40 --seeds 0 1 2

The defects that train, and all images of the same tiles, leave the test split, so each seed has its own. The maps
that the one-class runs have kept, of whatever seed, are measured again on the images that remain.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning import seed_everything
from one_class import figures, markdown, measure, once

from anomalib_defect_plugins import MagneticTile, OneStage, WithDefects


def run(options: Namespace, seed: int, stem: Path) -> None:
    """Train on real masks and test, once."""
    seed_everything(seed)
    root = Path(os.environ["DEFECT_DATA_ROOT"]) / "magnetic_tile"
    base = MagneticTile(root, train_batch_size=options.batch, eval_batch_size=8, num_workers=options.workers)
    amount = {"real": options.masks, "per_object": options.per_object, "synthetic": options.synthetic}
    data = WithDefects(base, **amount, balanced=True, seed=seed)
    model = OneStage(
        (options.size, options.size),
        "small",
        norm=options.norm,
        prior=options.prior,
        defect_weight=options.defect_weight,
        augment=True,
        iterations=options.iterations,
        learning_rate=options.learning_rate,
        annealing=True,
        evaluator=False,
        visualizer=False,
    )
    measure(model, data, stem, options.precision)


def kept(stem: Path) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """Read what a run has kept: its table of images, and what :func:`one_class.inspect` gave."""
    table, arrays = pd.read_csv(stem.with_suffix(".csv")), np.load(stem.with_suffix(".npz"))
    maps = torch.from_numpy(arrays["maps"]).float()
    masks = np.unpackbits(arrays["masks"], count=maps.numel()).reshape(maps.shape).astype(bool)
    labels = torch.tensor((table.defect_type != "good").to_numpy())
    scores = torch.tensor(table.score.to_numpy())
    return table, {"scores": scores, "labels": labels, "maps": maps, "masks": torch.from_numpy(masks)}


def rows(options: Namespace) -> Iterator[dict[str, object]]:
    """Give the figures of OneStage, and of each one-class run on the same images."""
    setting = f"{options.masks}-{options.per_object}-{options.synthetic}-{options.size}-{options.iterations}-"
    setting += f"{options.learning_rate}-{options.norm}-{options.prior}-{options.defect_weight}-{options.precision}"
    name = f"OneStage, {options.masks} masks" + (f" and {options.synthetic}" if options.synthetic else "")
    for seed in options.seeds:
        stem = options.out / setting / str(seed)  # a dot in the last part would count as a suffix
        found = once(stem, lambda seed=seed, stem=stem: run(options, seed, stem))
        yield {"data": "magnetic_tile", "model": name, "seed": seed, **found}
        tested = set(pd.read_csv(stem.with_suffix(".csv")).image_path)
        for path in sorted((options.one_class / "magnetic_tile").glob("*.json")):
            table, seen = kept(path)
            own = table.image_path.isin(tested).to_numpy()
            part = {name: values[torch.from_numpy(own)] for name, values in seen.items()}
            yield {"data": "magnetic_tile", "model": path.stem.rpartition("-")[0], "seed": seed, **figures(part)}


def main() -> None:
    """Run what is missing, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=40)
    parser.add_argument("--per-object", type=int, default=1, help="at most so many masks of a tile")
    parser.add_argument("--size", type=int, default=128, help="side of the images that OneStage sees")
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--synthetic", help="generator that draws defects on half of the normal images")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--norm", choices=["group", "instance"], default="instance")
    parser.add_argument("--prior", type=float, default=0.3)
    parser.add_argument("--defect-weight", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--precision", default="32-true", help="of training; bf16-mixed is faster on a CPU with AMX")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--one-class", type=Path, default=Path("results/one_class"), help="results of one_class.py")
    parser.add_argument("--out", type=Path, default=Path("results/few_masks"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = pd.DataFrame(list(rows(options)))
    print(markdown(table[["data", "model", "seed", "pixel AP", "pixel AUROC", "AUPRO", "image AUROC", "image F1"]]))


if __name__ == "__main__":
    main()
