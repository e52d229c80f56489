"""Compare one-class methods on real data, at 256 x 256 and with the same split for all; print the tables.

    DEFECT_DATA_ROOT=... HF_HOME=$DEFECT_DATA_ROOT/hf_home HF_HUB_OFFLINE=1 \
        python experiments/one_class.py --data magnetic_tile kolektor_sdd --seeds 0 1 2

F1 is that of the best threshold on the test images, for every method alike: a bound, and the rule by which anomalib
sets thresholds where a data set has no validation images of its own. Images whose mask is empty as published count for
the image figures only. A finished run is kept, and not repeated: figures as JSON, scores as CSV, maps as a numpy
archive (float16). ``--latency`` times the kept models in OpenVINO, FP32, one image of 256 x 256 at a time. The seed of
a run is the model's; of Magnetic Tile the split is always the same, of KolektorSDD seed 1 tests fold 1, so that three
seeds test each cracked image once.
"""

import json
import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openvino
import pandas as pd
import torch
import yaml
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from anomalib.metrics import AUPRO
from anomalib.models import AnomalibModule, Padim, Patchcore
from lightning import seed_everything
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_precision_recall_curve

from anomalib_defect_plugins import CutPaste, KolektorSdd, MagneticTile, Sidn
from anomalib_defect_plugins.benchmark.latency import openvino_rows

PRETRAINED = "mobilenetv2_100"
SIZE = (256, 256)
"""Height and width of the image that latency is measured with; the graphs resize it as they resize any other."""

DIGITS = {"train s": 0, "parameters": 0, "OpenVINO ms": 1}

QUIET = {"evaluator": False, "visualizer": False}

DATA: dict[str, Callable[..., AnomalibDataModule]] = {
    "magnetic_tile": lambda root, _, **sizes: MagneticTile(root, **sizes),
    "kolektor_sdd": lambda root, seed, **sizes: KolektorSdd(root, fold=seed % 3, image_size=None, **sizes),
}

CORESET = {"magnetic_tile": 0.0005, "kolektor_sdd": 0.0025}
"""Shares of the patches that PatchCore keeps: about as many of both data sets, for the search takes its square."""

MODELS: dict[str, Callable[[Namespace, str], AnomalibModule]] = {
    "SIDN": lambda options, _: Sidn(**settings(options.sidn), **QUIET),
    "CutPaste": lambda options, _: CutPaste(**settings(options.cutpaste), **QUIET),
    "CutPaste, null model": lambda options, _: CutPaste(**settings(options.cutpaste) | {"iterations": 0}, **QUIET),
    "PaDiM": lambda *_: Padim(
        backbone=PRETRAINED, layers=["blocks.1", "blocks.2", "blocks.4"], n_features=100, **QUIET
    ),
    "PatchCore": lambda _, data: Patchcore(
        backbone=PRETRAINED, layers=["blocks.2", "blocks.4"], coreset_sampling_ratio=CORESET[data], **QUIET
    ),
}


def settings(pairs: list[str]) -> dict[str, object]:
    """Read arguments of a model, NAME=VALUE, the value in YAML."""
    return {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in pairs)}


def make_data(options: Namespace, name: str, seed: int) -> AnomalibDataModule:
    """Give a data set's split for models that learn from normal images."""
    root = Path(os.environ["DEFECT_DATA_ROOT"]) / name
    return DATA[name](root, seed, train_batch_size=options.batch, eval_batch_size=8, num_workers=options.workers)


# Figures


def inspect(model: AnomalibModule, data: AnomalibDataModule) -> dict[str, Tensor]:
    """Give scores (N,), labels (N,), maps and masks (N, H, W) of all test images."""
    parts: dict[str, list[Tensor]] = {"scores": [], "labels": [], "maps": [], "masks": []}
    model = model.eval()
    for batch in data.test_dataloader():
        image, mask = model.pre_processor.transform(batch.image, batch.gt_mask)
        with torch.inference_mode():
            output = model.model(image)
        parts["scores"].append(output.pred_score.flatten().float())
        parts["labels"].append(batch.gt_label.bool())
        parts["maps"].append(output.anomaly_map.reshape(len(image), *image.shape[-2:]).float())
        parts["masks"].append(mask.reshape(len(image), *image.shape[-2:]).bool())
    return {name: torch.cat(part) for name, part in parts.items()}


def best_f1(scores: Tensor, labels: Tensor) -> float:
    """F1 of the best threshold."""
    precision, recall, _ = binary_precision_recall_curve(ranked(scores), labels.long())
    return float((2 * precision * recall / (precision + recall).clamp(min=1e-12)).max())


def ranked(values: Tensor) -> Tensor:
    """Shift and scale to [0, 1], which torchmetrics would otherwise reach by a sigmoid that makes ties."""
    return ((values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)).double()


def figures(seen: dict[str, Tensor]) -> dict[str, float]:
    """Give everything that a run is measured by."""
    scores, labels, maps, masks = (seen[name] for name in ("scores", "labels", "maps", "masks"))
    marked = ~labels | masks.any((1, 2))
    values, truth = ranked(maps[marked]), masks[marked]
    return {
        "image AUROC": auroc(scores, labels),
        "image F1": best_f1(scores, labels),
        "pixel AUROC": auroc(values, truth),
        "AUPRO": aupro(values, truth),
        "pixel AP": float(binary_average_precision(values.flatten(), truth.flatten().long())),
    }


def figures_of_types(seen: dict[str, Tensor], types: np.ndarray) -> dict[str, float]:
    """Give the figures of each type of defect, its images against all normal ones."""
    scores, labels, maps, masks = (seen[name] for name in ("scores", "labels", "maps", "masks"))
    found = {}
    for kind in sorted(set(types[labels.numpy()])):
        own = ~labels | torch.from_numpy(types == kind)
        marked = own & (~labels | masks.any((1, 2)))
        found[f"image AUROC {kind}"] = auroc(scores[own], labels[own])
        found[f"pixel AUROC {kind}"] = auroc(maps[marked], masks[marked])
    return found


def auroc(values: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve."""
    return float(binary_auroc(ranked(values.flatten()), labels.flatten().long()))


def aupro(maps: Tensor, masks: Tensor) -> float:
    """Area under the per-region overlap up to a false positive rate of 0.3, as anomalib has it."""
    metric = AUPRO(fields=["anomaly_map", "gt_mask"])
    metric.update(Namespace(anomaly_map=maps.float(), gt_mask=masks.int()))
    return float(metric.compute())


# Runs


def measure(model: AnomalibModule, data: AnomalibDataModule, stem: Path, precision: str) -> None:
    """Train and test once, and keep what came out."""
    engine = Engine(
        default_root_dir=stem.parent / "models" / stem.name,
        accelerator="auto",
        devices=1,
        precision=precision,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
    )
    start = time.perf_counter()
    engine.fit(model, datamodule=data)
    seconds = time.perf_counter() - start
    seen, samples = inspect(model.cpu(), data), data.test_data.samples
    found = figures(seen) | figures_of_types(seen, samples.defect_type.to_numpy())
    found |= {"train s": seconds, "parameters": sum(part.numel() for part in model.model.parameters())}
    table = samples[["image_path", "defect_type"]].assign(score=seen["scores"].numpy())
    table.to_csv(stem.with_suffix(".csv"), index=False)
    np.savez(stem.with_suffix(".npz"), maps=seen["maps"].half().numpy(), masks=np.packbits(seen["masks"].numpy()))
    # Written last: a run without it is repeated.
    stem.with_suffix(".json").write_text(json.dumps(found))


def once(stem: Path, work: Callable[[], None]) -> dict[str, float]:
    """Give the figures kept under ``stem``, after doing the work if they are not there."""
    if not stem.with_suffix(".json").exists():
        stem.parent.mkdir(parents=True, exist_ok=True)
        work()
    return json.loads(stem.with_suffix(".json").read_text())


def run(options: Namespace, data_name: str, model_name: str, seed: int, stem: Path) -> None:
    """Train and test a model."""
    seed_everything(seed)
    data, model = make_data(options, data_name, seed), MODELS[model_name](options, data_name)
    measure(model, data, stem, options.precision if model_name in {"SIDN", "CutPaste"} else "32-true")


def stem_of(options: Namespace, model: str, seed: int) -> str:
    """Give the name of a run's files."""
    return f"{options.name or model}-{seed}".replace(", ", "-").replace(" ", "-")


def results(options: Namespace) -> Iterator[dict[str, object]]:
    """Give the figures of all runs, after doing those that are missing."""
    for data in options.data:
        for model in options.models:
            for seed in options.seeds:
                stem = options.out / data / stem_of(options, model, seed)
                found = once(stem, partial(run, options, data, model, seed, stem))
                print(stem.name, found, flush=True)
                if options.latency:
                    found["OpenVINO ms"] = openvino_ms(options, data, model, seed)
                yield {"data": data, "model": options.name or model, "seed": seed, **found}


def openvino_ms(options: Namespace, data: str, name: str, seed: int) -> float:
    """Give the median time of the exported model for an image, in ms; half of it if it takes two at once only."""
    folder = options.out / data / "models" / stem_of(options, name, seed)
    kept = sorted(folder.rglob("v*/weights/lightning/*.ckpt"))[-1]
    model = type(MODELS[name](options, data)).load_from_checkpoint(kept, map_location="cpu", **QUIET)
    with TemporaryDirectory() as scratch:
        network = openvino.Core().read_model(model.eval().to_openvino(scratch, input_size=SIZE))
    row = next(row for row in openvino_rows(network, "FP32", SIZE, 3) if row["reason"] is None)
    return row["median_ms"] / row["batch"]


def markdown(rows: pd.DataFrame) -> str:
    """Give a table of means over the seeds, with lowest and highest in brackets where they differ."""
    names = [name for name in rows.columns if name not in {"data", "model", "seed"}]
    lines = ["| " + " | ".join(["data", "model", "runs", *names]) + " |", "|---" * (len(names) + 3) + "|"]
    for (data, model), group in rows.groupby(["data", "model"], sort=False):
        cells = [spread(group[name], DIGITS.get(name, 3)) for name in names]
        lines.append("| " + " | ".join([data, model, str(len(group)), *cells]) + " |")
    return "\n".join(lines)


def spread(values: pd.Series, digits: int) -> str:
    """Write a mean, and how far the values lie apart."""
    mean, low, high = (f"{value:.{digits}f}" for value in (values.mean(), values.min(), values.max()))
    return mean if low == high else f"{mean} ({low} to {high})"


def main() -> None:
    """Run what is missing, and print a table for all defects, and one for each type."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", choices=DATA, default=list(DATA))
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--sidn", nargs="*", default=[], metavar="NAME=VALUE", help="arguments of SIDN")
    parser.add_argument("--cutpaste", nargs="*", default=[], metavar="NAME=VALUE", help="arguments of CutPaste")
    parser.add_argument("--batch", type=int, default=8, help="training images of a step")
    parser.add_argument("--precision", default="32-true", help="of training; bf16-mixed is faster on a CPU with AMX")
    parser.add_argument("--name", help="name of the run, instead of the model's")
    parser.add_argument("--latency", action="store_true", help="measure the exported models; on an idle machine")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--out", type=Path, default=Path("results/one_class"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = pd.DataFrame(list(results(options)))
    typed = [name for name in rows.columns if name.split()[0] in {"image", "pixel"} and len(name.split()) > 2]
    print(markdown(rows.drop(columns=typed)))
    for data, group in rows.groupby("data", sort=False):
        print(f"\n{data}\n" + markdown(group[["data", "model", "seed", *typed]].dropna(axis=1)))


if __name__ == "__main__":
    main()
