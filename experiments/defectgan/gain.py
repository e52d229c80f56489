"""Measure the benefit of synthetic defects on Magnetic Tile with ten real ones of each type, and print the tables.

    DEFECT_DATA_ROOT=... HF_HOME=$DEFECT_DATA_ROOT/hf_home HF_HUB_OFFLINE=1 \
        python experiments/defectgan/gain.py --size 128 --backbone mobilenetv2_100 --out results/gain

For each seed, ten defective images of each type and all normal training images are selected. A Defect-GAN is trained
on them, and its synthetic and restored images, at the GAN's image size, are added to the training set. The variants of
the inspection classifier (normal and five types, section 3.2 of the paper) differ in their training sets:

- ``real``: the real images only.
- ``cutpaste``: the real images, and as many images with pasted defects as there are synthetic ones. The pasted defects
  are real ones, cut out along their masks.
- ``defectgan``: the real images, and Defect-GAN's synthetic and restored images; without the source classifier.
- ``grl``: the same images, with the source classifier behind the gradient reversal layer.

All variants sample each class equally often for the same number of steps. In ``defectgan`` and ``grl``, ``--share`` of
the images of each class, normal ones included, are synthetic, so that the class does not predict the source. The last
step is evaluated, since there are no validation images. Accuracy is over normal images and all types, macro-F1 the
mean over these classes. ``OneStage`` is trained on the real masks with and without the synthetic images and their
masks. The test set has the remaining images, of tiles that are not in the training set.

``--windows`` uses windows of ``windows.py`` instead of whole tiles, and ``--ckpt`` an existing Defect-GAN, for example
one trained on all images without their masks.

Finished runs are stored and not repeated; a Defect-GAN is resumed from its last epoch.
"""

import hashlib
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from anomalib.data import AnomalibDataset
from gain_data import WithFolder, make_data
from lightning import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from pasted import write_pasted
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, WeightedRandomSampler
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

sys.path.append(str(Path(__file__).parents[1]))

from common import QUIET, add_run_options, best_pixel_f1, create_engine, markdown, once, transformed

from anomalib_defect_plugins.core.files import atomic_path
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.models.defectgan.defect_classifier import (
    InspectionBatch,
    InspectionClassifier,
    InspectionSet,
    equal_shares,
)
from anomalib_defect_plugins.models.onestage import OneStage
from anomalib_defect_plugins.synthesis.folder import RESTORED, normal_images, synthetic_defects
from anomalib_defect_plugins.synthesis.synthesizer import SynthesisRequest, synthesize

CLASSIFIERS = ("real", "cutpaste", "defectgan", "grl")
SEGMENTERS = ("onestage", "onestage-cutpaste", "onestage-defectgan")
SOURCES = {
    "cutpaste": "cutpaste",
    "defectgan": "defectgan",
    "grl": "defectgan",
    "onestage-cutpaste": "cutpaste",
    "onestage-defectgan": "defectgan",
}
"""Source of the synthetic images of a variant, which names their folder."""


# Synthetic images


def train_gan(options: Namespace, seed: int, checkpoint: Path) -> None:
    """Train a Defect-GAN on the images of a seed, resuming from its last epoch if there is one."""
    seed_everything(seed)
    model = DefectGan(
        (options.size, options.size),
        channels=options.channels,
        residual_blocks=options.residual_blocks,
        grey=True,
        augment=options.gan_augment,
        batch_size=options.gan_batch_size,
        iterations=options.gan_iterations,
        critic_updates=options.critic_updates,
        learning_rate=options.gan_learning_rate,
        ema_decay=options.gan_ema_decay,
        **QUIET,
    )
    folder = checkpoint.parent / "gan"
    last = max(folder.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
    engine = create_engine(folder, options.precision, CSVLogger(folder))
    engine.fit(model, datamodule=make_data(options, seed, 8), ckpt_path=last)
    with atomic_path(checkpoint) as path:
        engine.trainer.save_checkpoint(path)


def write_images(options: Namespace, seed: int, source: str, root: Path) -> Path:
    """Write the synthetic images of a source unless they exist, and return their folder."""
    folder = root / source
    data = make_data(options, seed, 8)
    data.setup()
    if source == "cutpaste":
        write_pasted(folder, data.train_data, (options.size, options.size), options.num, seed)
        return folder
    threshold = options.threshold if options.threshold == "otsu" else float(options.threshold)
    checkpoint = options.ckpt or root / "model.ckpt"
    if not checkpoint.exists():
        train_gan(options, seed, checkpoint)
    synthesize(checkpoint, data, folder, SynthesisRequest(options.num, seed=seed, threshold=threshold, restored=True))
    return folder


# Inspection


def training_parts(data: WithFolder, name: str, folder: Path | None) -> list[tuple[AnomalibDataset, bool]]:
    """Return the training sets of a variant, and whether each is synthetic."""
    parts: list[tuple[AnomalibDataset, bool]] = [(data.train_data, False)]
    if folder is not None:
        parts.append((synthetic_defects(folder), True))
        if name in {"defectgan", "grl"}:
            parts.append((normal_images(folder, RESTORED), True))
    return parts


def balanced(parts: list[InspectionSet], draws: int) -> WeightedRandomSampler:
    """Return a sampler of concatenated sets that draws each class equally often, with replacement."""
    kinds = pd.Series(["+".join(types) for part in parts for types in part.types])
    return WeightedRandomSampler((1 / kinds.map(kinds.value_counts())).tolist(), draws)


def classify(options: Namespace, seed: int, name: str, folder: Path | None) -> dict[str, float]:
    """Train and test a variant of the classifier."""
    seed_everything(seed)
    data = make_data(options, seed, options.batch_size)
    data.setup()
    categories = sorted({kind for kind in data.test_data.samples.defect_type if kind != "good"})
    parts = [
        InspectionSet(dataset, categories, synthetic, options.inspection_size)
        for dataset, synthetic in training_parts(data, name, folder)
    ]
    training: ConcatDataset[Any] = ConcatDataset(parts)
    testing = InspectionSet(data.test_data, categories, False, options.inspection_size)
    model = InspectionClassifier(
        categories,
        backbone=options.backbone,
        pre_trained=not options.random,
        source_classifier=name == "grl",
        frozen_norm=options.frozen_norm,
        learning_rate=options.learning_rate,
    )
    trainer = Trainer(
        max_steps=options.iterations,
        gradient_clip_val=options.clip,
        precision=options.precision,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loading: dict[str, Any] = {"batch_size": options.batch_size, "num_workers": options.workers, "collate_fn": collate}
    draws = options.iterations * options.batch_size
    shared = name in {"defectgan", "grl"}
    sampler = equal_shares(parts, draws, options.share) if shared else balanced(parts, draws)
    trainer.fit(model, DataLoader(training, sampler=sampler, **loading))
    losses = {name: f"{float(value):.3f}" for name, value in trainer.callback_metrics.items()}
    print(f"seed {seed}, {name}, last step: {losses}", file=sys.stderr, flush=True)
    metrics = trainer.test(model, DataLoader(testing, **loading), verbose=False)[0]
    return {"accuracy": metrics["test_accuracy"], "macro-F1": metrics["test_macro_f1"]}


def collate(items: list[InspectionBatch]) -> InspectionBatch:
    """Collate samples into a batch."""
    return InspectionBatch(*map(torch.stack, zip(*items, strict=True)))


# Segmentation


def segment(options: Namespace, seed: int, folder: Path | None, out: Path) -> dict[str, float]:
    """Train and test ``OneStage`` on the masks, with its default settings."""
    seed_everything(seed)
    data = make_data(options, seed, 8, folder)
    size = (options.mask_size, options.mask_size)
    model = OneStage(size, backbone=options.mask_backbone, iterations=options.mask_iterations, **QUIET)
    create_engine(out, options.precision, CSVLogger(out)).fit(model, datamodule=data)
    maps, masks, scores, labels = predict(model, data.test_data)
    return {
        "pixel AP": binary_average_precision(maps, masks, None).item(),
        "pixel best F1": best_pixel_f1(maps, masks.bool()),
        "image AP": binary_average_precision(scores, labels, None).item(),
        "image AUROC": binary_auroc(scores, labels, None).item(),
    }


def predict(model: OneStage, dataset: AnomalibDataset) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predict the test images; return maps and masks of all pixels, scores and labels of all images.

    The four defective images that were published with an empty mask count as images, but not as pixels.
    """
    pixels, masks, scores, labels = [], [], [], []
    for item, image, mask in transformed(model, dataset):
        with torch.inference_mode():
            output = model.model(image)
        scores.append(output.pred_score.float().cpu().reshape(1))
        labels.append(item.gt_label.reshape(1).long())
        truth = cast(Tensor, mask).as_subclass(Tensor)
        if truth.any() or not item.gt_label:
            pixels.append(output.anomaly_map.float().cpu().flatten())
            masks.append(truth.flatten().long())
    return torch.cat(pixels), torch.cat(masks), torch.cat(scores), torch.cat(labels)


# Runs


def folder_of(options: Namespace, seed: int) -> Path:
    """Return the folder of a seed's synthetic images and results, named after their settings."""
    size = f"{options.size}-{options.channels}-{options.residual_blocks}-{options.gan_iterations}-{options.precision}"
    size += f"-{options.gan_batch_size}-{options.critic_updates}-{options.gan_learning_rate:g}-{options.gan_ema_decay}"
    size += "-augment" * options.gan_augment
    if options.ckpt:
        size = hashlib.sha256(options.ckpt.read_bytes()).hexdigest()[:12]
    amount = f"{options.num}-{options.threshold}-{options.per_type}-{options.per_object}" + "-windows" * bool(
        options.windows
    )
    return Path(options.out, f"{size}-{amount}", f"seed-{seed}")


def run(options: Namespace, seed: int, name: str) -> dict[str, float]:
    """Train and test a variant."""
    root = folder_of(options, seed)

    def work() -> dict[str, float]:
        folder = write_images(options, seed, SOURCES[name], root) if name in SOURCES else None
        if name in CLASSIFIERS:
            return classify(options, seed, name, folder)
        return segment(options, seed, folder, root / name)

    if name in CLASSIFIERS:
        weights = "random" if options.random else "timm"
        setting = f"{options.backbone}-{weights}-{options.inspection_size}-{options.batch_size}-"
        setting += f"{options.learning_rate}-{options.iterations}" + "-frozen" * options.frozen_norm
        setting += "" if options.clip is None else f"-clip{options.clip:g}"
        setting += f"-share{options.share:g}" if name in {"defectgan", "grl"} else ""
    else:
        setting = f"{options.mask_size}-{options.mask_backbone}-{options.mask_iterations}"
    start = time.monotonic()
    metrics = once(root / f"{name}-{setting}.json", work)
    line = ", ".join(f"{key} {value:.3f}" for key, value in metrics.items())
    print(f"seed {seed}, {name}, {(time.monotonic() - start) / 60:.1f} min: {line}", file=sys.stderr, flush=True)
    return metrics


def summary(variant: str, runs: list[dict[str, float]]) -> dict[str, object]:
    """Return a table row with mean and standard deviation over the seeds."""
    row: dict[str, object] = {"variant": variant, "seeds": len(runs)}
    for name in runs[0]:
        values = np.array([metrics[name] for metrics in runs])
        deviation = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
        row[name] = f"{values.mean():.3f}{deviation}"
    return row


def read_arguments() -> Namespace:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=Path, help="folder of windows.py, instead of whole tiles")
    parser.add_argument("--ckpt", type=Path, help="a Defect-GAN for all seeds, instead of one trained per seed")
    parser.add_argument("--size", type=int, default=128, help="side of Defect-GAN's images")
    parser.add_argument("--channels", type=int, default=64, help="channels of Defect-GAN's first layer")
    parser.add_argument("--residual-blocks", type=int, default=6)
    parser.add_argument("--gan-iterations", type=int, default=500000)
    parser.add_argument("--gan-batch-size", type=int, default=4, help="normal images per batch, and defective ones")
    parser.add_argument("--critic-updates", type=int, default=5)
    parser.add_argument("--gan-learning-rate", type=float, default=2e-4)
    parser.add_argument("--gan-ema-decay", type=float, default=0.999)
    parser.add_argument("--gan-augment", action="store_true", help="augment Defect-GAN's training images")
    parser.add_argument("--num", type=int, default=350, help="synthetic images; the paper has 7 for each real one")
    parser.add_argument("--threshold", default="otsu", help="threshold of Defect-GAN's maps in masks")
    parser.add_argument("--per-type", type=int, default=10, help="real defective training images of each type; 0: all")
    parser.add_argument("--per-object", type=int, help="maximum number of them from one tile")
    parser.add_argument("--backbone", default="resnet34")
    parser.add_argument("--random", action="store_true", help="initialise the backbone at random")
    parser.add_argument("--frozen-norm", action="store_true", help="freeze the statistics of batch norm")
    parser.add_argument("--inspection-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--clip", type=float, help="maximum gradient norm of the classifier")
    parser.add_argument("--iterations", type=int, default=2000, help="steps of the classifier")
    parser.add_argument("--share", type=float, default=0.5, help="share of synthetic images in each class")
    parser.add_argument("--mask-size", type=int, default=256, help="side of OneStage's images")
    parser.add_argument("--mask-backbone", default="mobilenetv2_100", help="encoder of OneStage")
    parser.add_argument("--mask-iterations", type=int, default=400, help="steps of OneStage")
    parser.add_argument("--variants", nargs="*", choices=CLASSIFIERS + SEGMENTERS, default=CLASSIFIERS + SEGMENTERS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    add_run_options(parser, "results/defectgan/gain")
    return parser.parse_args()


def main() -> None:
    """Run the missing variants and print the tables."""
    options = read_arguments()
    torch.set_num_threads(options.threads)
    results = {name: [run(options, seed, name) for seed in options.seeds] for name in options.variants}
    for group in (CLASSIFIERS, SEGMENTERS):
        rows = [summary(name, results[name]) for name in group if name in results]
        if rows:
            print(markdown(rows) + "\n")


if __name__ == "__main__":
    main()
