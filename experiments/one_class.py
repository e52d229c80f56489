"""Compare one-class methods on real data at 256 x 256, with the same split for all, and print tables.

    DEFECT_DATA_ROOT=... HF_HOME=$DEFECT_DATA_ROOT/hf_home HF_HUB_OFFLINE=1 \
        python experiments/one_class.py --data magnetic_tile kolektor_sdd --seeds 0 1 2

F1 is that of the best threshold on the test images for every method: an upper bound, and the rule by which anomalib
sets thresholds if a data set has no validation images. Images whose published mask is empty count for image metrics
only. Results of finished runs are stored, and not computed again: metrics as JSON, scores as CSV, maps as a numpy
archive (float16). ``--latency`` measures the stored models in OpenVINO, FP32, one image of 256 x 256 at a time. The
seed is that of the model. The split of Magnetic Tile is fixed; on KolektorSDD the seed also selects the fold, so that
seeds 0 to 2 test each cracked image once.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import yaml
from anomalib.data import AnomalibDataModule
from anomalib.metrics import AUPRO
from anomalib.models import Patchcore
from anomalib.models.components import AnomalibModule
from common import (
    PRETRAINED,
    QUIET,
    add_run_options,
    create_engine,
    create_padim,
    data_root,
    markdown,
    mean_rows,
    once,
    timed_fit,
)
from lightning import seed_everything
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_precision_recall_curve

from anomalib_defect_plugins import CutPaste, KolektorSdd, MagneticTile, Sidn
from anomalib_defect_plugins.benchmark.latency import openvino_rows
from anomalib_defect_plugins.core.openvino_core import openvino_core

SIZE = (256, 256)
"""Height and width of the image that latency is measured with; the graphs resize it to their input size."""

DATA: dict[str, Callable[..., AnomalibDataModule]] = {
    "magnetic_tile": lambda root, _, **sizes: MagneticTile(root, **sizes),
    "kolektor_sdd": lambda root, seed, **sizes: KolektorSdd(root, fold=seed % 3, image_size=None, **sizes),
}

CORESET = {"magnetic_tile": 0.0005, "kolektor_sdd": 0.0025}
"""Fractions of the patches that PatchCore keeps, similar numbers for both data sets, since the search is quadratic."""

MODELS: dict[str, Callable[[Namespace, str], AnomalibModule]] = {
    "SIDN": lambda options, _: Sidn(**settings(options.sidn), **QUIET),
    "CutPaste": lambda options, _: CutPaste(**settings(options.cutpaste), **QUIET),
    "CutPaste, null model": lambda options, _: CutPaste(**settings(options.cutpaste) | {"iterations": 0}, **QUIET),
    "PaDiM": lambda *_: create_padim(**QUIET),
    "PatchCore": lambda _, data: Patchcore(
        backbone=PRETRAINED, layers=["blocks.2", "blocks.4"], coreset_sampling_ratio=CORESET[data], **QUIET
    ),
}


def settings(pairs: list[str]) -> dict[str, Any]:
    """Parse model arguments of the form NAME=VALUE, with values in YAML."""
    return {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in pairs)}


def create_data(options: Namespace, name: str, seed: int) -> AnomalibDataModule:
    """Create a data module with the split for models that train on normal images."""
    sizes = {"train_batch_size": options.batch, "eval_batch_size": 8, "num_workers": options.workers}
    return DATA[name](data_root(name), seed, **sizes)


# Metrics


def predict(model: AnomalibModule, data: AnomalibDataModule) -> dict[str, Tensor]:
    """Return scores (N,), labels (N,), maps and masks (N, H, W) of all test images."""
    batches: dict[str, list[Tensor]] = {"scores": [], "labels": [], "maps": [], "masks": []}
    model = model.eval()
    transform, network = cast(Any, model.pre_processor).transform, cast(Callable[[Tensor], Any], model.model)
    for batch in data.test_dataloader():
        image, mask = transform(batch.image, batch.gt_mask)
        with torch.inference_mode():
            output = network(image)
        batches["scores"].append(output.pred_score.flatten().float())
        batches["labels"].append(batch.gt_label.bool())
        batches["maps"].append(output.anomaly_map.reshape(len(image), *image.shape[-2:]).float())
        batches["masks"].append(mask.reshape(len(image), *image.shape[-2:]).bool())
    return {name: torch.cat(values) for name, values in batches.items()}


def best_f1(scores: Tensor, labels: Tensor) -> float:
    """Compute the F1 of the best threshold."""
    precision, recall, _ = binary_precision_recall_curve(ranked(scores), labels.long())
    return float((2 * precision * recall / (precision + recall).clamp(min=1e-12)).max())


def ranked(values: Tensor) -> Tensor:
    """Scale values linearly to [0, 1]; otherwise torchmetrics applies a sigmoid, which creates ties."""
    return ((values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)).double()


def compute_metrics(predictions: dict[str, Tensor]) -> dict[str, float]:
    """Compute the metrics of all test images."""
    scores, labels, maps, masks = (predictions[name] for name in ("scores", "labels", "maps", "masks"))
    marked = ~labels | masks.any((1, 2))
    values, truth = ranked(maps[marked]), masks[marked]
    return {
        "image AUROC": auroc(scores, labels),
        "image F1": best_f1(scores, labels),
        "pixel AUROC": auroc(values, truth),
        "AUPRO": aupro(values, truth),
        "pixel AP": float(binary_average_precision(values.flatten(), truth.flatten().long())),
    }


def metrics_by_type(predictions: dict[str, Tensor], types: npt.NDArray[Any]) -> dict[str, float]:
    """Compute the metrics of each defect type, its images against all normal ones."""
    scores, labels, maps, masks = (predictions[name] for name in ("scores", "labels", "maps", "masks"))
    metrics = {}
    for defect_type in sorted(set(types[labels.numpy()])):
        selected = ~labels | torch.from_numpy(types == defect_type)
        marked = selected & (~labels | masks.any((1, 2)))
        metrics[f"image AUROC {defect_type}"] = auroc(scores[selected], labels[selected])
        metrics[f"pixel AUROC {defect_type}"] = auroc(maps[marked], masks[marked])
    return metrics


def auroc(values: Tensor, labels: Tensor) -> float:
    """Compute the area under the ROC curve."""
    return float(binary_auroc(ranked(values.flatten()), labels.flatten().long()))


def aupro(maps: Tensor, masks: Tensor) -> float:
    """Compute anomalib's area under the per-region overlap, up to a false positive rate of 0.3."""
    metric = AUPRO(fields=["anomaly_map", "gt_mask"])
    metric.update(cast(Any, Namespace(anomaly_map=maps.float(), gt_mask=masks.int())))
    return float(metric.compute())


# Runs


def measure(model: AnomalibModule, data: AnomalibDataModule, stem: Path, precision: str) -> dict[str, float]:
    """Train and test once, store scores and maps, and return the metrics."""
    seconds = timed_fit(create_engine(stem.parent / "models" / stem.name, precision), model, data)
    predictions, samples = predict(model.cpu(), data), data.test_data.samples
    metrics = compute_metrics(predictions) | metrics_by_type(predictions, samples.defect_type.to_numpy())
    parameters = model.model.parameters()
    metrics |= {"train s": seconds, "parameters": sum(parameter.numel() for parameter in parameters)}
    table = samples[["image_path", "defect_type"]].assign(score=predictions["scores"].numpy())
    table.to_csv(stem.with_suffix(".csv"), index=False)
    maps, masks = predictions["maps"].half().numpy(), np.packbits(predictions["masks"].numpy())
    np.savez(stem.with_suffix(".npz"), maps=maps, masks=masks)
    return metrics


def run(options: Namespace, data_name: str, model_name: str, seed: int, stem: Path) -> dict[str, float]:
    """Train and test a model."""
    seed_everything(seed)
    data, model = create_data(options, data_name, seed), MODELS[model_name](options, data_name)
    return measure(model, data, stem, options.precision if model_name in {"SIDN", "CutPaste"} else "32-true")


def stem_of(options: Namespace, model: str, seed: int) -> str:
    """Return the stem of the file names of a run."""
    return f"{options.name or model}-{seed}".replace(", ", "-").replace(" ", "-")


def results(options: Namespace) -> Iterator[dict[str, object]]:
    """Yield the metrics of all runs, running the missing ones."""
    for data in options.data:
        for model in options.models:
            for seed in options.seeds:
                stem = options.out / data / stem_of(options, model, seed)
                metrics = once(stem.with_suffix(".json"), partial(run, options, data, model, seed, stem))
                print(stem.name, metrics, flush=True)
                if options.latency:
                    metrics["OpenVINO ms"] = openvino_ms(options, data, model, seed)
                yield {"data": data, "model": options.name or model, "seed": seed, **metrics}


def openvino_ms(options: Namespace, data: str, name: str, seed: int) -> float:
    """Return the median time per image of the exported model, in ms, even if it needs batches of two images."""
    folder = options.out / data / "models" / stem_of(options, name, seed)
    checkpoint = sorted(folder.rglob("v*/weights/lightning/*.ckpt"))[-1]
    model = type(MODELS[name](options, data)).load_from_checkpoint(checkpoint, map_location="cpu", **QUIET)
    with TemporaryDirectory() as folder_name:
        network = openvino_core().read_model(model.eval().to_openvino(folder_name, input_size=SIZE))
    row: Any = next(row for row in openvino_rows(network, "FP32", SIZE, 3) if row["reason"] is None)
    return float(row["median_ms"] / row["batch"])


def main() -> None:
    """Run the missing runs, and print a table for all defects and one for each type."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", choices=DATA, default=list(DATA))
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--sidn", nargs="*", default=[], metavar="NAME=VALUE", help="arguments of SIDN")
    parser.add_argument("--cutpaste", nargs="*", default=[], metavar="NAME=VALUE", help="arguments of CutPaste")
    parser.add_argument("--batch", type=int, default=8, help="training batch size")
    parser.add_argument("--name", help="name of the run; default: the model's")
    parser.add_argument("--latency", action="store_true", help="measure the exported models; needs an idle machine")
    add_run_options(parser, "results/one_class")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = pd.DataFrame(list(results(options)))
    typed = [name for name in rows.columns if name.split()[0] in {"image", "pixel"} and len(name.split()) > 2]
    print(markdown(mean_rows(rows.drop(columns=typed), ["data", "model"])))
    for data, group in rows.groupby("data", sort=False):
        columns = group[["data", "model", "seed", *typed]].dropna(axis=1)
        print(f"\n{data}\n" + markdown(mean_rows(columns, ["data", "model"])))


if __name__ == "__main__":
    main()
