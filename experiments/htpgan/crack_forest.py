"""Measure HTP-GAN on CrackForest, beside baselines that learn nothing, and print the table of its README.

    DEFECT_DATA_ROOT=... python experiments/htpgan/crack_forest.py --out results/crack_forest

Each run learns from one crack-free image and is tested on all 118 images with cracks at 256x256. Three thresholds see
no label: ``sigma``, 2.5 standard deviations above the mean of the pooled test maps, ``otsu`` over the same, and
``reference``, a percentile of the normal image's own map. ``best`` is the threshold with the highest mean IoU on the
test labels: what no honest threshold can beat. A run that is finished is kept in its own file and not repeated.
"""

import json
import os
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anomalib.engine import Engine
from lightning import seed_everything
from skimage.filters import difference_of_gaussians
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from anomalib_defect_plugins import CrackForest, HtpGan
from anomalib_defect_plugins.post_processing import OtsuPostProcessor, SigmaPostProcessor

REFERENCES = (201, 205)
SEEDS = (0, 1, 2)
CRACKS: dict[str, object] = {"fusion": "log_odds"}
"""What configs/htpgan/crack_forest.yaml sets: cracks add structure."""

VARIANTS: dict[str, dict[str, object]] = {
    "log-odds": {},
    "typicality": {"fusion": "typicality"},
    "entropy": {"fusion": "entropy"},
    "plain fakes": {"blend_fakes": False},
    "plain fakes, entropy": {"blend_fakes": False, "fusion": "entropy"},
    "plain fakes, eq. 4 as printed": {"blend_fakes": False, "fusion": "paper"},
    "without texture module": {"texture_module": False},
    "contrast 0.1": {"contrast": 0.1},
    "75 iterations a scale": {"iterations_per_scale": 75},
    "width 16": {"width": 16},
    **{f"{scales} scales": {"num_scales": scales} for scales in (2, 3, 6, 9, 12)},
}


def batches(subset: torch.utils.data.Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Give images and masks at 256x256, eight at a time."""
    resize = HtpGan.configure_pre_processor().transform
    for start in range(0, len(subset), 8):
        items = [subset[i] for i in range(start, min(start + 8, len(subset)))]
        pairs = [resize(item.image, item.gt_mask) for item in items]
        yield torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs]).bool()


def confusion_curve(scores: np.ndarray, masks: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give mean IoU and pixel accuracy for ``scores > threshold``, for each threshold in rising order."""
    defect, normal = np.sort(scores[masks]), np.sort(scores[~masks])
    hits = defect.size - np.searchsorted(defect, thresholds, "right")
    alarms = normal.size - np.searchsorted(normal, thresholds, "right")
    iou_defect = hits / (defect.size + alarms)
    iou_normal = (normal.size - alarms) / (normal.size + defect.size - hits)
    return (iou_defect + iou_normal) / 2, (hits + normal.size - alarms) / scores.size


def evaluate(score: Callable[[Tensor], Tensor], data: CrackForest, reference: int | None = None) -> dict[str, float]:
    """Score all test images with ``score``, ``(B, 3, 256, 256)`` to ``(B, 256, 256)``, and measure."""
    with torch.no_grad():
        parts = [(score(image), mask) for image, mask in batches(data.test_data)]
    scores = torch.cat([part for part, _ in parts]).flatten()
    masks = torch.cat([mask for _, mask in parts]).flatten()
    result = {"pixel AUROC": binary_auroc(scores, masks.long()).item()}
    rules = {
        "sigma": SigmaPostProcessor().choose_threshold(scores.numpy()),
        "otsu": OtsuPostProcessor().choose_threshold(scores.numpy()),
    }
    if reference is not None:
        normal = data.train_data.subsample([reference - 201])
        with torch.no_grad():
            own = score(next(batches(normal))[0])
        rules["reference"] = np.quantile(own.numpy(), 0.998)
    for name, threshold in rules.items():
        miou, accuracy = confusion_curve(scores.numpy(), masks.numpy(), np.array([threshold]))
        result |= {f"{name} mIoU": miou[0], f"{name} accuracy": accuracy[0]}
    candidates = np.quantile(scores.numpy(), np.linspace(0.8, 1, 2001))
    miou, accuracy = confusion_curve(scores.numpy(), masks.numpy(), candidates)
    return {**result, "best mIoU": miou.max(), "best accuracy": accuracy[miou.argmax()]}


def train(arguments: dict[str, object], reference: int, seed: int, data: CrackForest, root: Path) -> HtpGan:
    """Train one model, without validation: nothing but the reference image is used."""
    seed_everything(seed)
    model = HtpGan(reference=f"{reference}.jpg", **(CRACKS | arguments))
    engine = Engine(
        default_root_dir=root, accelerator="auto", devices=1, limit_val_batches=0, enable_progress_bar=False
    )
    engine.fit(model, datamodule=data)
    return model.cpu().eval()


def once(path: Path, run: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Give the result kept at ``path``, or run and keep it."""
    if not path.exists():
        result = {key: float(value) for key, value in run().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(result))
        partial.replace(path)
    return json.loads(path.read_text())


def trained(arguments: dict[str, object], reference: int, seed: int, data: CrackForest, root: Path) -> dict[str, float]:
    """Train and measure."""
    start = time.perf_counter()
    model = train(arguments, reference, seed, data, root)
    seconds = time.perf_counter() - start
    return {**evaluate(lambda x: model.model(x).anomaly_map[:, 0], data, reference), "train s": seconds}


def baselines(data: CrackForest, out: Path) -> dict[str, list[dict[str, float]]]:
    """Measure what learns nothing."""

    def dark_lines(image: Tensor) -> Tensor:
        grey = -image.mean(1).numpy()
        return torch.from_numpy(np.stack([difference_of_gaussians(x, 1, 20) for x in grey]).astype(np.float32))

    def untrained(reference: int) -> dict[str, float]:
        seed_everything(0)
        model = HtpGan(**CRACKS).eval()
        return evaluate(lambda x: model.model(x).anomaly_map[:, 0], data, reference)

    return {
        "everything background": [
            once(out / "background.json", lambda: evaluate(lambda x: torch.zeros_like(x[:, 0]), data))
        ],
        "difference of Gaussians, sigma 1 - 20": [once(out / "dog.json", lambda: evaluate(dark_lines, data, 201))],
        "untrained discriminators": [once(out / f"untrained-{r}.json", lambda r=r: untrained(r)) for r in REFERENCES],
    }


def main() -> None:
    """Run what is missing, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/crack_forest"))
    parser.add_argument("--variants", nargs="*", default=["log-odds"], choices=[*VARIANTS, "all"])
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    options = parser.parse_args()
    data = CrackForest(root=Path(os.environ["DEFECT_DATA_ROOT"]) / "crack_forest")
    data.setup()
    rows = baselines(data, options.out)
    for name in VARIANTS if "all" in options.variants else options.variants:
        rows[name] = [
            once(
                options.out / f"{name}-{reference}-{seed}.json",
                lambda n=name, r=reference, s=seed: trained(VARIANTS[n], r, s, data, options.out / "models"),
            )
            for reference in REFERENCES
            for seed in options.seeds
        ]
    table = pd.DataFrame({name: pd.DataFrame(runs).mean() for name, runs in rows.items()}).T
    table.insert(0, "runs", [len(runs) for runs in rows.values()])
    print("| what | " + " | ".join(table.columns) + " |\n|" + "---|" * (len(table.columns) + 1))
    for name, row in table.iterrows():
        print(f"| {name} | " + " | ".join("" if np.isnan(value) else f"{value:.4g}" for value in row) + " |")


if __name__ == "__main__":
    main()
