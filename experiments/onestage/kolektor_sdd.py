"""Measure OneStage, its paper's network, a U-Net and PaDiM on KolektorSDD, three folds by object, and print the tables.

    DEFECT_DATA_ROOT=... HF_HOME=$DEFECT_DATA_ROOT/hf_home HF_HUB_OFFLINE=1 \
        python experiments/onestage/kolektor_sdd.py --out results/kolektor_sdd

Each run is trained on two folds, with all their defects and masks (PaDiM on their normal images), and tested on the
third. Three thresholds are used: ``best`` has the highest F-score on the test images (in the total one for all folds),
which is the paper's protocol but an upper bound; ``training`` has the highest F-score on the training images, halfway
between two scores on a logarithmic scale, and uses no test image; ``paper`` is the value printed in the paper. Missed
defects are worse than false alarms, so the lowest of equally good thresholds is used.

Finished runs are stored and not repeated: the scores of all images as CSV, the rest as JSON, and the test images that
``best`` or ``training`` misclassifies as PNG (image, mask, map).
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.models import Padim
from anomalib.models.components import AnomalibModule
from lightning import seed_everything
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

sys.path.append(str(Path(__file__).parents[1]))

from common import (
    QUIET,
    add_run_options,
    create_engine,
    create_padim,
    data_root,
    markdown,
    once,
    timed_fit,
    transformed,
)
from one_class import settings

from anomalib_defect_plugins.data import KolektorSdd, WithDefects
from anomalib_defect_plugins.models.onestage import OneStage
from anomalib_defect_plugins.models.onestage.lightning_model import SIGMA

SIZES = {"small": (352, 128), "half": (704, 256), "full": (1408, 512)}
"""Height and width in pixels of all variants but ``onestage``; ``full`` is the paper's."""

PAPER: dict[str, Any] = {
    "backbone": None,
    "prior": 0.01,
    "score": "mean",
    "defect_weight": None,
    "annealing": False,
    "sigma": SIGMA,
}
"""Arguments of the paper's network and training."""


class Variant(NamedTuple):
    """Arguments of ``OneStage`` besides ``PAPER``, and the batch size, by which the number of steps is divided."""

    arguments: dict[str, Any]
    batch_size: int = 1


VARIANTS: dict[str, Variant | None] = {
    "onestage": Variant({"spread_weight": 0.0}, 8),
    "paper": Variant({}),
    "cbs": Variant({"fine_iterations": 0}),
    "fbs": Variant({"coarse_suppression": False}),
    "unet": Variant({"coarse_suppression": False, "fine_iterations": 0}),
    "instance-norm": Variant({"norm": "instance"}),
    "group-norm-4": Variant({"norm": "group"}, 4),
    "instance-norm-4": Variant({"norm": "instance"}, 4),
    "batch-norm-4": Variant({"norm": "batch"}, 4),
    "padim": None,
}
"""``onestage`` has the defaults of the model, but the highest value as image score; ``unet`` is ``paper`` without CBS
and FBS; norms are compared at equal batch sizes; ``padim`` is anomalib's.
"""

PAPER_THRESHOLDS = {
    "paper": dict.fromkeys((0, 5, 9, 13, 17), 100),
    "unet": {0: 1000, 5: 1350, 9: 1300, 13: 1250, 17: 1250},
}
"""The paper's thresholds on the sum over an image of 1408 x 512 pixels, by dilation."""

Array = npt.NDArray[Any]


class ImagePrediction(NamedTuple):
    """Prediction for an image."""

    path: Path
    label: int
    score: float
    image: Tensor
    """(H, W), grey, in [0, 1]."""
    mask: Tensor
    """(H, W), bool."""
    anomaly_map: Tensor
    """(H, W)."""


def make_base(options: Namespace, fold: int, batch_size: int) -> AnomalibDataModule:
    """Create the data module of a fold: its test images, normal images and ``train_defects`` of the others."""
    return KolektorSdd(
        data_root("kolektor_sdd"),
        fold=fold,
        dilation=options.dilation,
        image_size=None,  # the model resizes, so training and the exported graph have the same input
        train_batch_size=batch_size,
        eval_batch_size=1,
        num_workers=options.workers,
    )


def make_model(options: Namespace, name: str) -> AnomalibModule:
    """Create the model of a variant."""
    size, variant = SIZES[options.size], VARIANTS[name]
    if variant is None:
        return create_padim(pre_processor=Padim.configure_pre_processor(size), **QUIET)
    if name == "onestage":
        return OneStage(**variant.arguments | settings(options.onestage), **QUIET)
    arguments = {"image_size": size, "width": options.width, "augment": options.augment, **PAPER}
    steps = max(1, options.iterations // variant.batch_size)
    return OneStage(**arguments | variant.arguments, iterations=steps, **QUIET)


def predict(model: AnomalibModule, dataset: AnomalibDataset) -> Iterator[ImagePrediction]:
    """Predict the images of a data set one by one."""
    for item, image, mask in transformed(model, dataset):
        with torch.inference_mode():
            output = model.model(image)
        grey = torch.nn.functional.interpolate(item.image[None], image.shape[-2:], mode="area")[0].mean(0)
        anomaly_map = output.anomaly_map.reshape(image.shape[-2:]).float().cpu()
        label, score = int(item.gt_label), float(output.pred_score)
        yield ImagePrediction(Path(item.image_path), label, score, grey, cast(Tensor, mask).bool(), anomaly_map)


# Metrics


def counts(scores: Array, labels: Array, threshold: float | Array) -> dict[str, float]:
    """Compute TP, FP, FN, precision, recall and F-score (eq. 8 to 10, beta = 1) for ``scores > threshold``."""
    flagged, labels = scores > threshold, labels.astype(bool)
    hits, false, missed = (int(images.sum()) for images in (flagged & labels, flagged & ~labels, ~flagged & labels))
    rates = {
        "precision": hits / max(1, hits + false),
        "recall": hits / max(1, hits + missed),
        "F": 2 * hits / max(1, 2 * hits + false + missed),
    }
    return {"TP": hits, "FP": false, "FN": missed, **rates}


def best_threshold(scores: Array, labels: Array) -> float:
    """Return the threshold with the highest F-score, halfway between two scores, of probabilities on a log scale.

    Probabilities of a confident network span several orders of magnitude.
    """
    values = np.unique(scores)
    if values[0] >= 0 and values[-1] <= 1:
        values = np.log(np.maximum(values, 1e-30))
        candidates = [0.0, *np.exp((values[1:] + values[:-1]) / 2)]
    else:
        candidates = [values[0] - 1, *(values[1:] + values[:-1]) / 2]
    return float(max(candidates, key=lambda threshold: (counts(scores, labels, threshold)["F"], -threshold)))


def average_precision(scores: Array, labels: Array) -> float:
    """Compute the average precision of image scores in any range."""
    ranks = torch.from_numpy(rankdata(scores) / len(scores))  # torchmetrics applies a sigmoid to values above 1
    return binary_average_precision(ranks, torch.from_numpy(labels.astype(int))).item()


def pixel_auroc(predictions: list[ImagePrediction]) -> float:
    """Compute the fraction of pairs of a defect pixel and a normal pixel that the maps rank correctly."""
    defect = np.sort(np.concatenate([one.anomaly_map[one.mask].numpy() for one in predictions]))
    wins, pairs = 0.0, 0
    for one in predictions:
        normal = one.anomaly_map[~one.mask].numpy()
        below = (np.searchsorted(defect, normal, side) for side in ("left", "right"))
        wins += sum(float((defect.size - count).sum()) for count in below) / 2
        pairs += normal.size * defect.size
    return wins / pairs


def thresholds(table: pd.DataFrame) -> dict[str, float]:
    """Compute the thresholds of a run from its scores."""
    limits = {}
    for name, split in (("best", "test"), ("training", "train")):
        rows = table[table.split == split]
        limits[name] = best_threshold(rows.score.to_numpy(), rows.label.to_numpy())
    return limits


# Runs


def run(options: Namespace, name: str, fold: int, stem: Path) -> dict[str, float]:
    """Train a variant on a fold, store its predictions, and return the metrics that need the maps."""
    variant = VARIANTS[name]
    seed_everything(options.seed)
    base = make_base(options, fold, 8 if variant is None else variant.batch_size)
    data = WithDefects(base, real="all")
    model = make_model(options, name)
    engine = create_engine(stem.parent / "models" / stem.name, options.precision)
    seconds = timed_fit(engine, model, base if variant is None else data)
    data.setup()
    rows = [("train", str(one.path), one.label, one.score) for one in predict(model, data.train_data)]
    tested = list(predict(model, data.test_data))
    rows += [("test", str(one.path), one.label, one.score) for one in tested]
    table = pd.DataFrame(rows, columns=["split", "image", "label", "score"])
    write_pictures(tested, thresholds(table), stem)
    table.to_csv(stem.with_suffix(".csv"), index=False)
    return {"pixel AUROC": pixel_auroc(tested), "training s": seconds}


def write_pictures(tested: list[ImagePrediction], limits: dict[str, float], stem: Path) -> None:
    """Draw image, mask and map of the images that a threshold misclassifies."""
    highest = max(1.0, *(float(one.anomaly_map.max()) for one in tested))
    for one in tested:
        wrong = [name for name, limit in limits.items() if (one.score > limit) != bool(one.label)]
        if wrong:
            panels = torch.cat([one.image, one.mask.float(), one.anomaly_map / highest], 1)
            kind = "missed" if one.label else "false"
            folder = stem.with_name(f"{stem.name}-wrong")
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{kind}-{'-'.join(wrong)}-{one.path.parent.name}-{one.path.stem}.png"
            Image.fromarray((255 * panels.clamp(0, 1)).byte().numpy()).save(path)


def table_rows(
    name: str, dilation: int, tables: dict[int, pd.DataFrame], metrics: dict[int, dict[str, float]]
) -> Iterator[dict[str, Any]]:
    """Return the rows of a variant: each fold and the total, for each threshold."""
    tests = {fold: table[table.split == "test"] for fold, table in tables.items()}
    pooled = pd.concat(tests.values())
    limits = {fold: thresholds(table) for fold, table in tables.items()}
    rules = ["best", "training"]
    if dilation in PAPER_THRESHOLDS.get(name, {}):
        rules.append("paper")
        for fold_limits in limits.values():
            fold_limits["paper"] = PAPER_THRESHOLDS[name][dilation] / (1408 * 512)
    common = best_threshold(pooled.score.to_numpy(), pooled.label.to_numpy())
    for rule in rules:
        for fold, test in tests.items():
            limit = limits[fold][rule]
            yield row(name, fold, rule, test, limit, metrics[fold]["pixel AUROC"], f"{limit:.3g}")
        each = np.concatenate([np.full(len(test), limits[fold][rule]) for fold, test in tests.items()])
        shown = {"best": f"{common:.3g}", "training": "each fold's", "paper": f"{each[0]:.3g}"}[rule]
        auroc = float(np.mean([values["pixel AUROC"] for values in metrics.values()]))
        yield row(name, "all", rule, pooled, common if rule == "best" else each, auroc, shown)


def row(
    name: str, fold: object, rule: str, test: pd.DataFrame, limit: float | Array, auroc: float, shown: str
) -> dict[str, Any]:
    """Return a row of the table."""
    scores, labels = test.score.to_numpy(), test.label.to_numpy()
    metrics = {
        key: f"{value:.3f}" if isinstance(value, float) else value
        for key, value in counts(scores, labels, limit).items()
    }
    area = {"AP": f"{average_precision(scores, labels):.3f}", "pixel AUROC": f"{auroc:.4f}"}
    return {"variant": name, "fold": fold, "threshold": rule, "value": shown, **metrics, **area}


def main() -> None:
    """Run the missing variants and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="half")
    parser.add_argument("--width", choices=["small", "paper"], default="small")
    parser.add_argument("--dilation", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=6000, help="training images; the steps at batch size 1")
    parser.add_argument("--augment", action="store_true", help="augment by flips, rotation, scale and brightness")
    parser.add_argument("--folds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=["onestage", "paper", "unet", "padim"])
    parser.add_argument("--onestage", nargs="*", default=[], metavar="NAME=VALUE", help="arguments of onestage")
    parser.add_argument("--seed", type=int, default=0)
    add_run_options(parser, "results/kolektor_sdd")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    augment = "-augment" if options.augment else ""
    shape = f"{options.width}-{options.size}-{options.dilation}"
    setting = f"{shape}-{options.iterations}{augment}-{options.precision}-{options.seed}"
    rows: list[dict[str, Any]] = []
    for name in options.variants:
        arguments = "-".join(["", *options.onestage]).replace(".", "_") if name == "onestage" else ""
        stems = {fold: options.out / setting / f"{name}{arguments}-{fold}" for fold in options.folds}
        metrics = {
            fold: once(stem.with_suffix(".json"), partial(run, options, name, fold, stem))
            for fold, stem in stems.items()
        }
        tables = {fold: pd.read_csv(stem.with_suffix(".csv")) for fold, stem in stems.items()}
        rows += table_rows(name, options.dilation, tables, metrics)
    print(markdown(rows))


if __name__ == "__main__":
    main()
