"""Measure OneStage, trained on a few real masks of Magnetic Tile, at the images' original size, and print the tables.

    DEFECT_DATA_ROOT=... HF_HOME=$DEFECT_DATA_ROOT/hf_home HF_HUB_OFFLINE=1 \
        python experiments/few_masks.py --masks 40 --seeds 0 1 2 --threads 2

The seed selects the tiles whose defects are trained on, each with one mask, and seeds the model. All other images of
these tiles are removed from the test split. ``configs/benchmark/regimes.yaml`` compares with other methods on the same
images; this script adds the metrics by defect type. Results of finished runs are stored, and not computed again.
"""

from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from common import QUIET, add_run_options, create_engine, data_root, markdown, mean_rows, once, timed_fit, transformed
from lightning import seed_everything
from one_class import aupro, auroc, best_f1, ranked, settings
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics.functional.classification import binary_average_precision

from anomalib_defect_plugins import MagneticTile, OneStage, WithDefects
from anomalib_defect_plugins.data.original_masks import OriginalMasks

COLUMNS = ["pixel AP", "pixel AUROC", "AUPRO", "image AUROC", "image F1", "train s"]


def create_data(options: Namespace, seed: int) -> WithDefects:
    """Create the data of a seed."""
    base = MagneticTile(data_root("magnetic_tile"), train_batch_size=options.batch, num_workers=options.workers)
    return WithDefects(base, real=options.masks, per_object=1, synthetic=options.synthetic or None, seed=seed)


def predict(model: OneStage, data: WithDefects) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the scores (N,), and the maps and masks (H, W) at the original sizes, of all test images."""
    scores, maps, masks = [], [], []
    original = OriginalMasks(data)
    for item, image, _ in transformed(model, data.test_data):
        mask = torch.from_numpy(original(str(item.image_path)))
        with torch.inference_mode():
            output: Any = model.model(image)
        scores.append(float(output.pred_score))
        maps.append(interpolate(output.anomaly_map, mask.shape, mode="bilinear")[0, 0].cpu())
        masks.append(mask)
    return torch.tensor(scores), maps, masks


def compute_metrics(
    scores: Tensor, maps: list[Tensor], masks: list[Tensor], types: npt.NDArray[Any]
) -> dict[str, float]:
    """Compute the metrics of all images, and pixel AUROC by defect type, against all normal images."""
    labels = torch.from_numpy(types != "good")
    marked = [not label or bool(mask.any()) for label, mask in zip(labels, masks, strict=True)]
    pixels = ranked(torch.cat([one.flatten() for one in maps]).double())
    truth = torch.cat([mask.flatten() for mask in masks])
    kinds = np.repeat(np.where(marked, types, "unmarked"), [mask.numel() for mask in masks])
    selected = torch.from_numpy(kinds != "unmarked")
    metrics = {
        "pixel AP": float(binary_average_precision(pixels[selected], truth[selected].long())),
        "pixel AUROC": auroc(pixels[selected], truth[selected]),
        "AUPRO": aupro(*_padded(maps, masks, marked)),
        "image AUROC": auroc(scores.double(), labels),
        "image F1": best_f1(scores.double(), labels),
    }
    for kind in sorted(set(types[labels.numpy()])):
        one = torch.from_numpy(np.isin(kinds, ["good", kind]))
        metrics[f"pixel AUROC {kind}"] = auroc(pixels[one], truth[one])
    return metrics


def _padded(maps: list[Tensor], masks: list[Tensor], marked: list[bool]) -> tuple[Tensor, Tensor]:
    """Stack maps and masks (N, H, W): AUPRO takes images of one size, and counts rates over all of their pixels."""
    size = np.max([mask.shape for mask in masks], axis=0).tolist()
    pairs = [(one, mask) for one, mask, keep in zip(maps, masks, marked, strict=True) if keep]
    resized = [
        (interpolate(one[None, None], size, mode="bilinear")[0, 0], interpolate(mask[None, None].float(), size)[0, 0])
        for one, mask in pairs
    ]
    values, truth = zip(*resized, strict=True)
    return ranked(torch.stack(values).double()), torch.stack(truth).bool()


def run(options: Namespace, seed: int, stem: Path) -> dict[str, float]:
    """Train on real masks and test once."""
    seed_everything(seed)
    data = create_data(options, seed)
    model = OneStage(**settings(options.onestage), **QUIET)
    seconds = timed_fit(create_engine(stem.parent / "models" / stem.name, options.precision), model, data)
    scores, maps, masks = predict(cast(OneStage, model.cpu()), data)
    samples = data.test_data.samples
    types = samples.defect_type.to_numpy()
    table = samples[["image_path", "defect_type"]].assign(score=scores.numpy())
    table.to_csv(stem.with_suffix(".csv"), index=False)
    counts = {"images": len(types), "defective": int((types != "good").sum())}
    return {**compute_metrics(scores, maps, masks, types), "train s": seconds, **counts}


def main() -> None:
    """Run the missing runs, and print a table for all defects and one for each type."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", nargs="*", type=int, default=[40])
    parser.add_argument(
        "--synthetic", nargs="*", default=[], help="generators of synthetic defects on half of the normal images"
    )
    parser.add_argument("--onestage", nargs="*", default=[], metavar="NAME=VALUE", help="arguments of OneStage")
    parser.add_argument("--batch", type=int, default=8, help="training batch size")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    add_run_options(parser, "results/few_masks")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for masks in options.masks:
        name = "-".join([f"{masks}-masks", *options.synthetic, *options.onestage, str(options.batch)])
        one = Namespace(**{**vars(options), "masks": masks})
        for seed in options.seeds:
            stem = options.out / name.replace(".", "_") / str(seed)
            metrics = once(stem.with_suffix(".json"), partial(run, one, seed, stem))
            print(stem, metrics, flush=True)
            rows.append({"training": name, "seed": seed, **metrics})
    table = pd.DataFrame(rows)
    types = [column for column in table if column.startswith("pixel AUROC ")]
    print(markdown(mean_rows(table[["training", "seed", "images", "defective", *COLUMNS]], ["training"])))
    print("\n" + markdown(mean_rows(table[["training", "seed", *types]], ["training"])))


if __name__ == "__main__":
    main()
