"""Measure OneStage on KolektorSDD, three folds by object, beside a U-Net and PaDiM, and print the tables of its README.

    DEFECT_DATA_ROOT=... HF_HOME=$DEFECT_DATA_ROOT/hf_home HF_HUB_OFFLINE=1 \
        python experiments/onestage/kolektor_sdd.py --out results/kolektor_sdd

Each run learns from two folds, with all their defects and masks (PaDiM: from their normal images), and is tested on the
third. Three thresholds: ``best`` has the highest F-score on the test images, for the total one for all folds, which is
the paper's protocol and no honest one; ``training`` has the highest F-score on the images that the model learnt from,
half-way between two scores on a logarithmic scale, and sees no test image; ``paper`` is the number that the paper
prints for the network. Missed defects are worse than false alarms, so of equally good thresholds the lowest is taken.

A finished run is kept in its own files and not repeated: the scores of all images as CSV, the rest as JSON, and as PNG
(image, mask, map) the test images that ``best`` or ``training`` gets wrong.
"""

import json
import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.engine import Engine
from anomalib.models import AnomalibModule, Padim
from lightning import seed_everything
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

from anomalib_defect_plugins.data import KolektorSdd, WithDefects
from anomalib_defect_plugins.models.onestage import OneStage
from anomalib_defect_plugins.models.onestage.lightning_model import SIGMA

SIZES = {"small": (352, 128), "half": (704, 256), "full": (1408, 512)}
"""Heights and widths in pixels; the paper's is the full one."""


class Variant(NamedTuple):
    """Arguments of ``OneStage``, and how many images make a batch; steps are fewer by as much."""

    arguments: dict[str, object]
    batch_size: int = 1


VARIANTS: dict[str, Variant | None] = {
    "onestage": Variant({}),
    "cbs": Variant({"fine_iterations": 0}),
    "fbs": Variant({"coarse_suppression": False}),
    "unet": Variant({"coarse_suppression": False, "fine_iterations": 0}),
    "instance-norm": Variant({"norm": "instance"}),
    "group-norm-4": Variant({"norm": "group"}, 4),
    "instance-norm-4": Variant({"norm": "instance"}, 4),
    "batch-norm-4": Variant({"norm": "batch"}, 4),
    "padim": None,
}
"""``unet`` is the same network without CBS and FBS; norms are compared at equal batches; PaDiM is anomalib's own."""

PRINTED = {
    "onestage": dict.fromkeys((0, 5, 9, 13, 17), 100),
    "unet": {0: 1000, 5: 1350, 9: 1300, 13: 1250, 17: 1250},
}
"""The paper's thresholds on the sum over an image of 1408 x 512 pixels, by dilation."""

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Seen(NamedTuple):
    """What a model says of an image."""

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
    """Give the data of a fold: normal images to train with, ``train_defects``, and all images of the fold to test."""
    return KolektorSdd(
        Path(os.environ["DEFECT_DATA_ROOT"]) / "kolektor_sdd",
        fold=fold,
        dilation=options.dilation,
        image_size=None,  # the model resizes, so that training sees what the exported graph will
        train_batch_size=batch_size,
        eval_batch_size=1,
        num_workers=options.workers,
    )


def make_model(options: Namespace, variant: Variant | None) -> AnomalibModule:
    """Give a new model; all work at the same image size."""
    size = SIZES[options.size]
    if variant is None:
        return Padim(
            backbone="mobilenetv2_100",
            layers=["blocks.1", "blocks.2", "blocks.4"],
            n_features=100,
            pre_processor=Padim.configure_pre_processor(size),
            evaluator=False,
            visualizer=False,
        )
    settings = {"image_size": size, "width": options.width, "augment": options.augment, "sigma": SIGMA}
    steps = max(1, options.iterations // variant.batch_size)
    return OneStage(**settings | variant.arguments, iterations=steps, evaluator=False, visualizer=False)


def look(model: AnomalibModule, dataset: AnomalibDataset) -> Iterator[Seen]:
    """Show a model the images of a data set, one at a time."""
    model = model.to(DEVICE).eval()
    for index in range(len(dataset)):
        item = dataset[index]
        # Without a batch dimension, which would make a plain tensor of a mask, and then it would not be resized.
        image, mask = model.pre_processor.transform(item.image, item.gt_mask)
        with torch.inference_mode():
            output = model.model(image[None].to(DEVICE))
        grey = torch.nn.functional.interpolate(item.image[None], image.shape[-2:], mode="area")[0].mean(0)
        anomaly_map = output.anomaly_map.reshape(image.shape[-2:]).float().cpu()
        label, score = int(item.gt_label), float(output.pred_score)
        yield Seen(Path(item.image_path), label, score, grey, mask.bool(), anomaly_map)


# Figures


def counts(scores: np.ndarray, labels: np.ndarray, threshold: float | np.ndarray) -> dict[str, float]:
    """Give TP, FP, FN, precision, recall and F-score (eq. 8 to 10, beta = 1) for ``scores > threshold``."""
    flagged, labels = scores > threshold, labels.astype(bool)
    hits, false, missed = (int(part.sum()) for part in (flagged & labels, flagged & ~labels, ~flagged & labels))
    rates = {
        "precision": hits / max(1, hits + false),
        "recall": hits / max(1, hits + missed),
        "F": 2 * hits / max(1, 2 * hits + false + missed),
    }
    return {"TP": hits, "FP": false, "FN": missed, **rates}


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """Give the threshold with the highest F-score, half-way between two scores on a logarithmic scale.

    Scores of a network that is sure of itself spread over powers of ten.
    """
    values = np.log(np.unique(np.maximum(scores, 1e-30)))
    candidates = [0.0, *np.exp((values[1:] + values[:-1]) / 2)]
    return max(candidates, key=lambda threshold: (counts(scores, labels, threshold)["F"], -threshold))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Give the average precision of image scores, which may be any numbers."""
    ranks = torch.from_numpy(rankdata(scores) / len(scores))  # torchmetrics would squash numbers above 1
    return binary_average_precision(ranks, torch.from_numpy(labels.astype(int))).item()


def pixel_auroc(seen: list[Seen]) -> float:
    """Give the share of pairs of a defect pixel and a normal pixel, of any images, that their maps order rightly."""
    defect = np.sort(np.concatenate([one.anomaly_map[one.mask].numpy() for one in seen]))
    wins, pairs = 0.0, 0
    for one in seen:
        normal = one.anomaly_map[~one.mask].numpy()
        below = (np.searchsorted(defect, normal, side) for side in ("left", "right"))
        wins += sum(float((defect.size - part).sum()) for part in below) / 2
        pairs += normal.size * defect.size
    return wins / pairs


def thresholds(table: pd.DataFrame) -> dict[str, float]:
    """Give the thresholds of a run from its scores."""
    found = {}
    for name, split in (("best", "test"), ("training", "train")):
        part = table[table.split == split]
        found[name] = best_threshold(part.score.to_numpy(), part.label.to_numpy())
    return found


# Runs


def run(options: Namespace, name: str, fold: int, stem: Path) -> None:
    """Train a variant on a fold, and keep what it says."""
    variant = VARIANTS[name]
    seed_everything(options.seed)
    base = make_base(options, fold, 8 if variant is None else variant.batch_size)
    data = WithDefects(base, real="all", balanced=True)
    model = make_model(options, variant)
    engine = Engine(
        default_root_dir=stem.parent / "models" / stem.name,
        accelerator="auto",
        devices=1,
        precision=options.precision,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
    )
    start = time.perf_counter()
    engine.fit(model, datamodule=base if variant is None else data)
    seconds = time.perf_counter() - start
    data.setup()
    rows = [("train", str(one.path), one.label, one.score) for one in look(model, data.train_data)]
    tested = list(look(model, data.test_data))
    rows += [("test", str(one.path), one.label, one.score) for one in tested]
    table = pd.DataFrame(rows, columns=["split", "image", "label", "score"])
    write_pictures(tested, thresholds(table), stem)
    table.to_csv(stem.with_suffix(".csv"), index=False)
    # Written last: a run without it is repeated.
    stem.with_suffix(".json").write_text(json.dumps({"pixel AUROC": pixel_auroc(tested), "training s": seconds}))


def write_pictures(tested: list[Seen], limits: dict[str, float], stem: Path) -> None:
    """Draw image, mask and map of the images that a threshold gets wrong."""
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


def figures(
    name: str, dilation: int, tables: dict[int, pd.DataFrame], notes: dict[int, dict[str, float]]
) -> Iterator[dict]:
    """Give the rows of a variant: each fold and the total, for each threshold."""
    tests = {fold: table[table.split == "test"] for fold, table in tables.items()}
    pooled = pd.concat(tests.values())
    limits = {fold: thresholds(table) for fold, table in tables.items()}
    rules = ["best", "training"]
    if dilation in PRINTED.get(name, {}):
        rules.append("paper")
        for limit in limits.values():
            limit["paper"] = PRINTED[name][dilation] / (1408 * 512)
    common = best_threshold(pooled.score.to_numpy(), pooled.label.to_numpy())
    for rule in rules:
        for fold, test in tests.items():
            limit = limits[fold][rule]
            yield row(name, fold, rule, test, limit, notes[fold]["pixel AUROC"], f"{limit:.3g}")
        each = np.concatenate([np.full(len(test), limits[fold][rule]) for fold, test in tests.items()])
        shown = {"best": f"{common:.3g}", "training": "each fold's", "paper": f"{each[0]:.3g}"}[rule]
        auroc = float(np.mean([note["pixel AUROC"] for note in notes.values()]))
        yield row(name, "all", rule, pooled, common if rule == "best" else each, auroc, shown)


def row(
    name: str, fold: object, rule: str, test: pd.DataFrame, limit: float | np.ndarray, auroc: float, shown: str
) -> dict:
    """Give a row of the table."""
    scores, labels = test.score.to_numpy(), test.label.to_numpy()
    found = {
        key: f"{value:.3f}" if isinstance(value, float) else value
        for key, value in counts(scores, labels, limit).items()
    }
    area = {"AP": f"{average_precision(scores, labels):.3f}", "pixel AUROC": f"{auroc:.4f}"}
    return {"variant": name, "fold": fold, "threshold": rule, "value": shown, **found, **area}


def print_table(rows: list[dict]) -> None:
    """Print rows in Markdown."""
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for one in rows:
        print("| " + " | ".join(str(value) for value in one.values()) + " |")


def once(stem: Path, work: Callable[[], None]) -> tuple[pd.DataFrame, dict[str, float]]:
    """Give the scores and notes kept under ``stem``, after doing the work if they are not there."""
    notes = stem.with_suffix(".json")
    if not notes.exists():
        stem.parent.mkdir(parents=True, exist_ok=True)
        work()
    return pd.read_csv(stem.with_suffix(".csv")), json.loads(notes.read_text())


def main() -> None:
    """Run what is missing, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="half")
    parser.add_argument("--width", choices=["small", "paper"], default="small")
    parser.add_argument("--dilation", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=6000, help="training images seen, in batches of one: steps")
    parser.add_argument("--augment", action="store_true", help="mirror, turn, scale and light training images")
    parser.add_argument("--folds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=["onestage", "unet", "padim"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--precision", default="32-true", help="bf16-mixed is three times as fast on a CPU with AMX")
    parser.add_argument("--out", type=Path, default=Path("results/kolektor_sdd"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    augment = "-augment" if options.augment else ""
    shape = f"{options.width}-{options.size}-{options.dilation}"
    setting = f"{shape}-{options.iterations}{augment}-{options.precision}-{options.seed}"
    rows = []
    for name in options.variants:
        runs = {}
        for fold in options.folds:
            stem = options.out / setting / f"{name}-{fold}"
            runs[fold] = once(stem, lambda name=name, fold=fold, stem=stem: run(options, name, fold, stem))
        tables = {fold: table for fold, (table, _) in runs.items()}
        notes = {fold: note for fold, (_, note) in runs.items()}
        rows += figures(name, options.dilation, tables, notes)
    print_table(rows)


if __name__ == "__main__":
    main()
