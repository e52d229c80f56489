"""Measure on Magnetic Tile what synthetic defects are good for, with ten real ones of each type, and print the tables.

    DEFECT_DATA_ROOT=... HF_HOME=$DEFECT_DATA_ROOT/hf_home HF_HUB_OFFLINE=1 \
        python experiments/defectgan/gain.py --size 128 --backbone mobilenetv2_100 --out results/gain

For each seed, ten defective images of each type and all normal training images are chosen. A Defect-GAN learns from
them, and its synthetic and restored images, at its own size, join them. Variants of the inspection classifier (normal
and five types, section 3.2 of the paper):

- ``real``: the real images alone.
- ``cutpaste``: and real defects, cut out along their masks and pasted elsewhere, as many as synthetic ones.
- ``defectgan``: and Defect-GAN's synthetic and restored images, without the source classifier.
- ``grl``: and the source classifier behind the gradient reversal layer.

All see each class equally often, whatever its images are, for the same number of steps; the last step counts, since
there are no images to validate with. Accuracy is of normal and each type, macro-F1 the mean over these. ``OneStage``
learns from the real masks with and without the synthetic images and their masks. Everything is tested on the images
that are left, no tile of which has trained.

``--windows`` takes windows of ``windows.py`` instead of whole tiles, and ``--ckpt`` a Defect-GAN that has learnt
already, as from all images without their masks.

A finished run is kept in its own file and not repeated; a Defect-GAN goes on from its last epoch.
"""

import hashlib
import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anomalib.data import AnomalibDataset
from anomalib.engine import Engine
from gain_data import WithFolder, make_data
from lightning import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from pasted import write_pasted
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, WeightedRandomSampler
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.models.defectgan.defect_classifier import (
    InspectionBatch,
    InspectionClassifier,
    InspectionSet,
)
from anomalib_defect_plugins.models.onestage import OneStage
from anomalib_defect_plugins.synthesis.folder import RESTORED, normal_images, synthetic_defects
from anomalib_defect_plugins.synthesis.synthesizer import Request, synthesize

CLASSIFIERS = ("real", "cutpaste", "defectgan", "grl")
SEGMENTERS = ("onestage", "onestage-cutpaste", "onestage-defectgan")
SOURCES = {
    "cutpaste": "cutpaste",
    "defectgan": "defectgan",
    "grl": "defectgan",
    "onestage-cutpaste": "cutpaste",
    "onestage-defectgan": "defectgan",
}
"""Folder of the synthetic images of a variant that has some."""

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_engine(folder: Path, precision: str) -> Engine:
    """Give an engine that trains and leaves its losses in a table, ``metrics.csv``."""
    return Engine(
        default_root_dir=folder,
        precision=precision,
        accelerator="auto",
        devices=1,
        limit_val_batches=0,
        logger=CSVLogger(folder),
        enable_progress_bar=False,
    )


# Synthetic images


def train_gan(options: Namespace, seed: int, checkpoint: Path) -> None:
    """Train a Defect-GAN on the images of a seed, from its last epoch if there is one."""
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
        evaluator=False,
        visualizer=False,
    )
    folder = checkpoint.parent / "gan"
    last = max(folder.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
    engine = make_engine(folder, options.precision)
    engine.fit(model, datamodule=make_data(options, seed, 8), ckpt_path=last)
    partial = checkpoint.with_suffix(".part")
    engine.trainer.save_checkpoint(partial)
    os.replace(partial, checkpoint)


def write_images(options: Namespace, seed: int, source: str, root: Path) -> Path:
    """Write the synthetic images of a source, unless they are there; gives their folder."""
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
    synthesize(checkpoint, data, folder, Request(options.num, seed=seed, threshold=threshold, restored=True))
    return folder


# Inspection


def training_parts(data: WithFolder, name: str, folder: Path | None) -> list[tuple[AnomalibDataset, bool]]:
    """Give what a variant learns from, and whether it is synthetic."""
    parts: list[tuple[AnomalibDataset, bool]] = [(data.train_data, False)]
    if folder is not None:
        parts.append((synthetic_defects(folder), True))
    if name in {"defectgan", "grl"}:
        parts.append((normal_images(folder, RESTORED), True))
    return parts


def balanced(dataset: ConcatDataset, draws: int) -> WeightedRandomSampler:
    """Draw each class equally often, with replacement."""
    kinds = pd.Series(["+".join(types) for part in dataset.datasets for types in part.types])
    return WeightedRandomSampler((1 / kinds.map(kinds.value_counts())).tolist(), draws)


def classify(options: Namespace, seed: int, name: str, folder: Path | None) -> dict[str, float]:
    """Train a variant of the classifier, and test it."""
    seed_everything(seed)
    data = make_data(options, seed, options.batch_size)
    data.setup()
    categories = sorted({kind for kind in data.test_data.samples.defect_type if kind != "good"})
    parts = [
        InspectionSet(dataset, categories, synthetic, options.inspection_size)
        for dataset, synthetic in training_parts(data, name, folder)
    ]
    training, testing = ConcatDataset(parts), InspectionSet(data.test_data, categories, False, options.inspection_size)
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
    loading = {"batch_size": options.batch_size, "num_workers": options.workers, "collate_fn": collate}
    sampler = balanced(training, options.iterations * options.batch_size)
    trainer.fit(model, DataLoader(training, sampler=sampler, **loading))
    learnt = {name: f"{float(value):.3f}" for name, value in trainer.callback_metrics.items()}
    print(f"seed {seed}, {name}, last step: {learnt}", file=sys.stderr, flush=True)
    found = trainer.test(model, DataLoader(testing, **loading), verbose=False)[0]
    return {"accuracy": found["test_accuracy"], "macro-F1": found["test_macro_f1"]}


def collate(items: list[InspectionBatch]) -> InspectionBatch:
    """Put items into a batch."""
    return InspectionBatch(*map(torch.stack, zip(*items, strict=True)))


# Segmentation


def segment(options: Namespace, seed: int, folder: Path | None, out: Path) -> dict[str, float]:
    """Train ``OneStage`` on the masks, with what its page says of few masks, and test it."""
    seed_everything(seed)
    data = make_data(options, seed, 4, folder)
    model = OneStage(
        (options.mask_size, options.mask_size),
        width=options.width,
        norm="instance",
        prior=0.3,
        defect_weight=0.5,
        augment=True,
        iterations=options.mask_iterations,
        learning_rate=options.mask_learning_rate,
        annealing=True,
        evaluator=False,
        visualizer=False,
    )
    make_engine(out, options.precision).fit(model, datamodule=data)
    maps, masks, scores, labels = look(model, data.test_data)
    return {
        "pixel AP": binary_average_precision(maps, masks, None).item(),
        "pixel best F1": best_f1(maps, masks.bool()),
        "image AP": binary_average_precision(scores, labels, None).item(),
        "image AUROC": binary_auroc(scores, labels, None).item(),
    }


def look(model: OneStage, dataset: AnomalibDataset) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Show a model the test images: maps and masks of all pixels, scores and labels of all images.

    The four defective images that were published with an empty mask count as images, but not as pixels.
    """
    model = model.to(DEVICE).eval()
    pixels, masks, scores, labels = [], [], [], []
    for row in range(len(dataset)):
        item = dataset[row]
        # Without a batch dimension, which would make a plain tensor of a mask, and then it would not be resized.
        image, mask = model.pre_processor.transform(item.image, item.gt_mask)
        with torch.inference_mode():
            output = model.model(image[None].to(DEVICE))
        scores.append(output.pred_score.float().cpu().reshape(1))
        labels.append(item.gt_label.reshape(1).long())
        if mask.any() or not item.gt_label:
            pixels.append(output.anomaly_map.float().cpu().flatten())
            masks.append(mask.as_subclass(Tensor).flatten().long())
    return torch.cat(pixels), torch.cat(masks), torch.cat(scores), torch.cat(labels)


def best_f1(values: Tensor, true: Tensor) -> float:
    """Give the best F1 of one threshold for all pixels, a bound that no honest rule reaches."""
    hits = true[values.argsort(descending=True)].double().cumsum(0)
    return float((2 * hits / (torch.arange(1, len(hits) + 1) + true.sum())).max())


# Runs


def once(path: Path, work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Give the figures kept in a file, after doing the work if it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = work()
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(found))
        os.replace(partial, path)
    return json.loads(path.read_text())


def folder_of(options: Namespace, seed: int) -> Path:
    """Give the folder of a seed's synthetic images and results, which names how they were made."""
    size = f"{options.size}-{options.channels}-{options.residual_blocks}-{options.gan_iterations}-{options.precision}"
    size += f"-{options.gan_batch_size}-{options.critic_updates}-{options.gan_learning_rate:g}-{options.gan_ema_decay}"
    size += "-augment" * options.gan_augment
    if options.ckpt:
        size = hashlib.sha256(options.ckpt.read_bytes()).hexdigest()[:12]
    amount = f"{options.num}-{options.threshold}-{options.per_type}-{options.per_object}" + "-windows" * bool(
        options.windows
    )
    return options.out / f"{size}-{amount}" / f"seed-{seed}"


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
    else:
        setting = f"{options.mask_size}-{options.width}-{options.mask_learning_rate}-{options.mask_iterations}"
    start = time.monotonic()
    found = once(root / f"{name}-{setting}.json", work)
    figures = ", ".join(f"{key} {value:.3f}" for key, value in found.items())
    print(f"seed {seed}, {name}, {(time.monotonic() - start) / 60:.1f} min: {figures}", file=sys.stderr, flush=True)
    return found


def print_table(rows: dict[str, list[dict[str, float]]]) -> None:
    """Print mean and standard deviation over the seeds in Markdown."""
    names = list(next(iter(rows.values()))[0])
    print("| variant | seeds | " + " | ".join(names) + " |\n|" + "---|" * (2 + len(names)))
    for variant, found in rows.items():
        cells = []
        for name in names:
            values = np.array([one[name] for one in found])
            spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.3f}{spread}")
        print(f"| {variant} | {len(found)} | " + " | ".join(cells) + " |")


def read_arguments() -> Namespace:
    """Read the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=Path, help="folder of windows.py, instead of whole tiles")
    parser.add_argument("--ckpt", type=Path, help="a Defect-GAN for all seeds, instead of one that learns from the ten")
    parser.add_argument("--size", type=int, default=128, help="side of Defect-GAN's images")
    parser.add_argument("--channels", type=int, default=64, help="channels of Defect-GAN's first layer")
    parser.add_argument("--residual-blocks", type=int, default=6)
    parser.add_argument("--gan-iterations", type=int, default=500000)
    parser.add_argument("--gan-batch-size", type=int, default=4, help="normal images, and as many defective ones")
    parser.add_argument("--critic-updates", type=int, default=5)
    parser.add_argument("--gan-learning-rate", type=float, default=2e-4)
    parser.add_argument("--gan-ema-decay", type=float, default=0.999)
    parser.add_argument("--gan-augment", action="store_true", help="vary Defect-GAN's training images")
    parser.add_argument("--num", type=int, default=350, help="synthetic images; the paper has 7 for each real one")
    parser.add_argument("--threshold", default="otsu", help="Defect-GAN's maps above it are defect in masks")
    parser.add_argument("--per-type", type=int, default=10, help="real defective training images of each type; 0: all")
    parser.add_argument("--per-object", type=int, help="at most so many of them of a tile")
    parser.add_argument("--backbone", default="resnet34")
    parser.add_argument("--random", action="store_true", help="the backbone starts at random")
    parser.add_argument("--frozen-norm", action="store_true", help="batch norms keep their statistics")
    parser.add_argument("--inspection-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--clip", type=float, help="greatest norm of the classifier's gradient")
    parser.add_argument("--iterations", type=int, default=2000, help="steps of the classifier")
    parser.add_argument("--mask-size", type=int, default=256, help="side of OneStage's images")
    parser.add_argument("--width", choices=["small", "paper"], default="small")
    parser.add_argument("--mask-learning-rate", type=float, default=3e-3)
    parser.add_argument("--mask-iterations", type=int, default=2000, help="steps of OneStage")
    parser.add_argument("--variants", nargs="*", choices=CLASSIFIERS + SEGMENTERS, default=CLASSIFIERS + SEGMENTERS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--precision", default="32-true", help="of training; bf16-mixed is faster on a CPU with AMX")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--out", type=Path, default=Path("results/defectgan/gain"))
    return parser.parse_args()


def main() -> None:
    """Run what is missing, and print the tables."""
    options = read_arguments()
    torch.set_num_threads(options.threads)
    found = {name: [run(options, seed, name) for seed in options.seeds] for name in options.variants}
    for group in (CLASSIFIERS, SEGMENTERS):
        rows = {name: found[name] for name in group if name in found}
        if rows:
            print_table(rows)
            print()


if __name__ == "__main__":
    main()
