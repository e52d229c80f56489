"""Evaluate HTP-GAN on CrackForest in comparison with untrained baselines, and print the table of its README.

    DEFECT_DATA_ROOT=... python experiments/htpgan/crack_forest.py --out results/crack_forest

Each run trains on one crack-free image and is tested on all 118 images with cracks at 256x256. Three thresholds use no
labels: ``sigma``, 2.5 standard deviations above the mean of the pooled test maps, ``otsu`` over the same maps, and
``reference``, a percentile of the normal image's map. ``best`` is the threshold with the highest mean IoU on the test
labels, an upper bound for the others. Results of finished runs are stored in a file each, and not computed again.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from anomalib.data import AnomalibDataset
from anomalib.models import Patchcore
from lightning import seed_everything
from skimage.filters import difference_of_gaussians
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

sys.path.append(str(Path(__file__).parents[1]))

from common import PRETRAINED, QUIET, create_engine, data_root, markdown, once, timed_fit

from anomalib_defect_plugins import CrackForest, HtpGan
from anomalib_defect_plugins.post_processing import OtsuPostProcessor, SigmaPostProcessor

REFERENCES = (201, 205)
"""Numbers of the crack-free images to train on."""

SEEDS = (0, 1, 2)

CRACKS: dict[str, Any] = {"fusion": "log_odds"}
"""Model arguments of configs/htpgan/crack_forest.yaml, because cracks add structure."""

Array = npt.NDArray[Any]

VARIANTS: dict[str, dict[str, Any]] = {
    "log-odds": {},
    "typicality": {"fusion": "typicality"},
    "entropy": {"fusion": "entropy"},
    "plain fakes": {"blend_fakes": False},
    "plain fakes, entropy": {"blend_fakes": False, "fusion": "entropy"},
    "plain fakes, eq. 4 as printed": {"blend_fakes": False, "fusion": "paper"},
    "without texture module": {"texture_module": False},
    "contrast 0.1": {"contrast": 0.1},
    "generators as initialised": {"generator_lr": 0.0},
    "generators that learn the texture": {"contrast": 0.5, "noise_amplitude": 0.1, "generator_lr": 5e-4},
    "same, three scales together": {
        "contrast": 0.5,
        "noise_amplitude": 0.1,
        "generator_lr": 5e-4,
        "joint_scales": 3,
    },
    "12 scales without texture module": {"num_scales": 12, "texture_module": False},
    "75 iterations a scale": {"iterations_per_scale": 75},
    "width 16": {"width": 16},
    **{f"{scales} scales": {"num_scales": scales} for scales in (2, 3, 6, 9, 12)},
}


class OneImage(CrackForest):
    """CrackForest with a single training image.

    Args:
        root: Folder of the data.
        reference: Number of the image.
    """

    def __init__(self, root: Path, reference: int) -> None:
        super().__init__(root)
        self.reference = reference

    def _setup(self, stage: str | None = None) -> None:
        super()._setup(stage)
        self.train_data = self.train_data.subsample([self.reference - 201])


def batches(dataset: AnomalibDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of eight images and masks at 256x256."""
    resize = cast(Callable[..., Any], HtpGan.configure_pre_processor().transform)
    for start in range(0, len(dataset), 8):
        items = [dataset[i] for i in range(start, min(start + 8, len(dataset)))]
        pairs = [resize(item.image, item.gt_mask) for item in items]
        yield torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs]).bool()


def confusion_curve(scores: Array, masks: Array, thresholds: Array) -> tuple[Array, Array]:
    """Return mean IoU and pixel accuracy of ``scores > threshold`` for each of the ascending thresholds."""
    defect, normal = np.sort(scores[masks]), np.sort(scores[~masks])
    hits = defect.size - np.searchsorted(defect, thresholds, "right")
    alarms = normal.size - np.searchsorted(normal, thresholds, "right")
    iou_defect = hits / (defect.size + alarms)
    iou_normal = (normal.size - alarms) / (normal.size + defect.size - hits)
    return (iou_defect + iou_normal) / 2, (hits + normal.size - alarms) / scores.size


def evaluate(score: Callable[[Tensor], Tensor], data: CrackForest, reference: int | None = None) -> dict[str, float]:
    """Compute the metrics of all test images.

    Args:
        score: Function from images (B, 3, 256, 256) to anomaly maps (B, 256, 256).
        data: Data module, set up.
        reference: Number of the normal image that the threshold ``reference`` is derived from, if any.
    """
    with torch.no_grad():
        results = [(score(image), mask) for image, mask in batches(data.test_data)]
    scores = torch.cat([maps for maps, _ in results]).flatten()
    masks = torch.cat([mask for _, mask in results]).flatten()
    result: dict[str, Any] = {"pixel AUROC": binary_auroc(scores, masks.long()).item()}
    thresholds = {
        "sigma": SigmaPostProcessor().choose_threshold(scores.numpy()),
        "otsu": OtsuPostProcessor().choose_threshold(scores.numpy()),
    }
    if reference is not None:
        normal = data.train_data.subsample([reference - 201])
        with torch.no_grad():
            normal_map = score(next(batches(normal))[0])
        thresholds["reference"] = float(np.quantile(normal_map.numpy(), 0.998))
    for name, threshold in thresholds.items():
        miou, accuracy = confusion_curve(scores.numpy(), masks.numpy(), np.array([threshold]))
        result |= {f"{name} mIoU": miou[0], f"{name} accuracy": accuracy[0]}
    candidates = np.quantile(scores.numpy(), np.linspace(0.8, 1, 2001))
    miou, accuracy = confusion_curve(scores.numpy(), masks.numpy(), candidates)
    return {**result, "best mIoU": miou.max(), "best accuracy": accuracy[miou.argmax()]}


def trained(arguments: dict[str, Any], reference: int, seed: int, data: CrackForest, root: Path) -> dict[str, float]:
    """Train a model on the reference image only, without validation, and compute its metrics."""
    seed_everything(seed)
    model = HtpGan(reference=f"{reference}.jpg", **(CRACKS | arguments))
    seconds = timed_fit(create_engine(root), model, data)
    model = model.cpu().eval()
    return {**evaluate(lambda x: model.model(x).anomaly_map[:, 0], data, reference), "train s": seconds}


def baselines(data: CrackForest, out: Path) -> dict[str, list[dict[str, float]]]:
    """Compute the metrics of methods that are not trained, or only on features of the same image."""

    def dark_lines(image: Tensor) -> Tensor:
        grey = -image.mean(1).numpy()
        filtered = [difference_of_gaussians(image, 1, 20) for image in grey]  # type: ignore[no-untyped-call]
        return torch.from_numpy(np.stack(filtered).astype(np.float32))

    def untrained(reference: int) -> dict[str, float]:
        seed_everything(0)
        model = HtpGan(**CRACKS).eval()
        return evaluate(lambda x: model.model(x).anomaly_map[:, 0], data, reference)

    def patchcore(reference: int) -> dict[str, float]:
        """Fit PatchCore, with a pretrained encoder, on the patches of one normal image."""
        seed_everything(0)
        model = Patchcore(PRETRAINED, ["blocks.2", "blocks.4"], coreset_sampling_ratio=1.0, **QUIET)
        create_engine(out / "models").fit(model, datamodule=OneImage(data_root("crack_forest"), reference))
        transform = cast(Any, model.cpu().eval().pre_processor).transform
        return evaluate(lambda x: model.model(transform(x)).anomaly_map[:, 0], data, reference)

    return {
        "everything background": [
            once(out / "background.json", lambda: evaluate(lambda x: torch.zeros_like(x[:, 0]), data))
        ],
        "difference of Gaussians, sigma 1 - 20": [once(out / "dog.json", lambda: evaluate(dark_lines, data, 201))],
        "untrained discriminators": [
            once(out / f"untrained-{reference}.json", partial(untrained, reference)) for reference in REFERENCES
        ],
        "PatchCore, MobileNetV2, one image": [
            once(out / f"patchcore-{reference}.json", partial(patchcore, reference)) for reference in REFERENCES
        ],
    }


def main() -> None:
    """Run the missing runs, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/crack_forest"))
    parser.add_argument("--variants", nargs="*", default=["log-odds"], choices=[*VARIANTS, "all"])
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    options = parser.parse_args()
    data = CrackForest(root=data_root("crack_forest"))
    data.setup()
    rows = baselines(data, options.out)
    for name in VARIANTS if "all" in options.variants else options.variants:
        rows[name] = [
            once(
                options.out / f"{name}-{reference}-{seed}.json",
                partial(trained, VARIANTS[name], reference, seed, data, options.out / "models"),
            )
            for reference in REFERENCES
            for seed in options.seeds
        ]
    table = pd.DataFrame({name: pd.DataFrame(runs).mean() for name, runs in rows.items()}).T
    table.insert(0, "runs", [len(runs) for runs in rows.values()])
    print(markdown(table.rename_axis("method").reset_index().to_dict("records")))


if __name__ == "__main__":
    main()
