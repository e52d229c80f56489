"""Compare OneStage, trained on a few real masks of Magnetic Tile, with one-class methods on the same test images.

    DEFECT_DATA_ROOT=... python experiments/one_class.py --data magnetic_tile      # first, for the one-class rows
    DEFECT_DATA_ROOT=... python experiments/few_masks.py --masks 40 --seeds 0 1 2

Defects used in training, and all images of the same tiles, are removed from the test split, so that it differs between
seeds. The stored maps of all one-class runs, of any seed, are evaluated again on the remaining images.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import QUIET, add_run_options, data_root, markdown, mean_rows, once
from lightning import seed_everything
from one_class import compute_metrics, measure

from anomalib_defect_plugins import MagneticTile, OneStage, WithDefects


def run(options: Namespace, seed: int, stem: Path) -> dict[str, float]:
    """Train on real masks and test once."""
    seed_everything(seed)
    sizes = {"train_batch_size": options.batch, "eval_batch_size": 8, "num_workers": options.workers}
    base = MagneticTile(data_root("magnetic_tile"), **sizes)
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
        **QUIET,
    )
    return measure(model, data, stem, options.precision)


def read_predictions(stem: Path) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """Read the stored results of a run: its image table, and the output of :func:`one_class.predict`."""
    table, arrays = pd.read_csv(stem.with_suffix(".csv")), np.load(stem.with_suffix(".npz"))
    maps = torch.from_numpy(arrays["maps"]).float()
    masks = np.unpackbits(arrays["masks"], count=maps.numel()).reshape(maps.shape).astype(bool)
    labels = torch.tensor((table.defect_type != "good").to_numpy())
    scores = torch.tensor(table.score.to_numpy())
    return table, {"scores": scores, "labels": labels, "maps": maps, "masks": torch.from_numpy(masks)}


def rows(options: Namespace) -> Iterator[dict[str, object]]:
    """Yield the metrics of OneStage, and of each one-class run on the same images."""
    setting = f"{options.masks}-{options.per_object}-{options.synthetic}-{options.size}-{options.iterations}-"
    setting += f"{options.learning_rate}-{options.norm}-{options.prior}-{options.defect_weight}-{options.precision}"
    name = f"OneStage, {options.masks} masks" + (f" and {options.synthetic}" if options.synthetic else "")
    for seed in options.seeds:
        stem = options.out / setting / str(seed)  # a dot in the last part would start a suffix
        metrics = once(stem.with_suffix(".json"), partial(run, options, seed, stem))
        yield {"data": "magnetic_tile", "model": name, "seed": seed, **metrics}
        tested = set(pd.read_csv(stem.with_suffix(".csv")).image_path)
        for path in sorted((options.one_class / "magnetic_tile").glob("*.json")):
            table, predictions = read_predictions(path)
            remaining = torch.from_numpy(table.image_path.isin(tested).to_numpy())
            metrics = compute_metrics({name: values[remaining] for name, values in predictions.items()})
            yield {"data": "magnetic_tile", "model": path.stem.rpartition("-")[0], "seed": seed, **metrics}


def main() -> None:
    """Run the missing runs, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=40)
    parser.add_argument("--per-object", type=int, default=1, help="maximum masks per tile")
    parser.add_argument("--size", type=int, default=128, help="side of the images for OneStage")
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--synthetic", help="generator of synthetic defects on half of the normal images")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--norm", choices=["group", "instance"], default="instance")
    parser.add_argument("--prior", type=float, default=0.3)
    parser.add_argument("--defect-weight", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--one-class", type=Path, default=Path("results/one_class"), help="results of one_class.py")
    add_run_options(parser, "results/few_masks")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = pd.DataFrame(list(rows(options)))
    columns = ["data", "model", "seed", "pixel AP", "pixel AUROC", "AUPRO", "image AUROC", "image F1"]
    print(markdown(mean_rows(table[columns], ["data", "model"])))


if __name__ == "__main__":
    main()
