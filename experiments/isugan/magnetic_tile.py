"""Measure ISU-GAN on Magnetic Tile, beside the plain CycleGAN generator, and print the tables of its README.

    DEFECT_DATA_ROOT=... OMP_NUM_THREADS=1 python experiments/isugan/magnetic_tile.py --size 128 --iterations 5000 \
        --variants isugan cyclegan --threads 1 --out results/isugan

100 images without a defect and 50 with one train, unpaired and without masks. Two thresholds of image scores:
``training`` has the highest F1 on the images that the model learnt from and sees no test image, ``best`` the highest
F1 on the test images, and is no honest one. Masks are Otsu's in the images above the threshold. ``pixel best`` is the
F1 of the best single threshold of all test pixels, another bound that no honest rule reaches. Four defective test
images that were published with an empty mask count as images, but not as pixels.

``hidden`` is the test for steganography: the error of n -> repaired -> n, in grey levels, and that with noise of two
grey levels added to the repaired image, which nobody would see. If the second is far above the first, the repaired
image hides the defect instead of lacking it.

The score of an image is the mean of its map's highest pixels, of a share chosen on the training images.

A finished run is kept and not repeated: figures as JSON, scores as CSV, and a PNG of ten images, a row each: input,
repaired, anomaly map (white is 0.5), mask at the ``training`` threshold, true mask.
"""

import json
import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from anomalib.engine import Engine
from lightning import seed_everything
from PIL import Image
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from anomalib_defect_plugins.data import MagneticTile, WithDefects
from anomalib_defect_plugins.layers import top_mean
from anomalib_defect_plugins.models.isugan import IsuGan
from anomalib_defect_plugins.models.isugan.post_processing import otsu_mask
from anomalib_defect_plugins.models.isugan.similarity import repair_error

PLAIN = {"skip": False, "involution": False, "squeeze_excitation": False}
VARIANTS = {
    "isugan": {},
    "cyclegan": PLAIN,
    "skip": PLAIN | {"skip": True},
    "involution": PLAIN | {"involution": True},
    "se": PLAIN | {"squeeze_excitation": True},
}
"""Arguments of the generators, the rows of the paper's Table 3."""

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NOISE = 2 / 255
SHEET_ROWS = 10


class FewNormals(WithDefects):
    """Real defects by number, and no more normal training images than asked for.

    Args:
        base: The data module.
        real: How many defective images train.
        normal: How many normal ones.
    """

    def __init__(self, base: MagneticTile, real: int, normal: int) -> None:
        super().__init__(base, real=real, masks=False)
        self.normal = normal

    def _setup(self, stage: str | None = None) -> None:
        super()._setup(stage)
        label = self.train_data.samples.label_index.to_numpy()
        normal, defective = (np.flatnonzero(label == kind) for kind in (LabelName.NORMAL, LabelName.ABNORMAL))
        kept = np.random.default_rng(self.seed).permutation(normal)[: self.normal]
        self.train_data.subsample([int(row) for row in sorted([*kept, *defective])], inplace=True)


class Seen(NamedTuple):
    """What a model says of an image; all images (H, W), in [0, 1]."""

    path: Path
    defect_type: str
    label: int
    score: float
    error: float
    """Eq. 16."""
    image: Tensor
    repaired: Tensor
    anomaly_map: Tensor
    mask: Tensor | None
    """Where there is one."""


def look(model: IsuGan, dataset: AnomalibDataset) -> Iterator[Seen]:
    """Show a model the images of a data set, one at a time."""
    model = model.to(DEVICE).eval()
    for index in range(len(dataset)):
        item = dataset[index]
        # Without a batch dimension, which would make a plain tensor of a mask, and then it would not be resized.
        image, mask = model.pre_processor.transform(item.image, item.gt_mask)
        image = image[None].to(DEVICE)
        with torch.inference_mode():
            repaired, output = model.model.inspect(image)
        grey = image[:, :1]
        yield Seen(
            Path(item.image_path),
            dataset.samples.defect_type.iloc[index],
            int(item.gt_label),
            float(output.pred_score),
            float(repair_error(grey, repaired)),
            *(part.reshape(image.shape[-2:]).float().cpu() for part in (grey, repaired, output.anomaly_map)),
            None if mask is None else mask.bool(),
        )


# Figures


def f1(flagged: np.ndarray, true: np.ndarray) -> float:
    """F1 with defects as positives, eq. 13 to 15, whose TN is the usual TP."""
    return 2 * float((flagged & true).sum()) / max(1, int(flagged.sum()) + int(true.sum()))


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the highest F1, half-way between two scores."""
    values = np.unique(scores)
    candidates = [0.0, *(values[1:] + values[:-1]) / 2]
    return max(candidates, key=lambda threshold: f1(scores > threshold, labels.astype(bool)))


def image_figures(tested: list[Seen], threshold: float, name: str) -> dict[str, float]:
    """Accuracy and F1 of the images, and pixel F1 of the masks."""
    labels = np.array([one.label for one in tested], dtype=bool)
    flagged = np.array([one.score for one in tested]) > threshold
    marked = [one for one in tested if not one.label or one.mask.any()]
    masks = torch.stack([mask_of(one, threshold) for one in marked]).numpy()
    true = torch.stack([truth(one) for one in marked]).numpy()
    return {
        f"accuracy {name}": float((flagged == labels).mean()),
        f"F1 {name}": f1(flagged, labels),
        f"pixel F1 {name}": f1(masks, true),
    }


def mask_of(one: Seen, threshold: float) -> Tensor:
    """The mask that a threshold of the image scores leaves, (H, W)."""
    return otsu_mask(one.anomaly_map[None], torch.tensor([one.score > threshold]))[0]


def truth(one: Seen) -> Tensor:
    """The true mask, which is empty in a normal image."""
    return one.mask if one.mask is not None else torch.zeros_like(one.image, dtype=torch.bool)


def pixel_figures(tested: list[Seen]) -> dict[str, float]:
    """The best F1 of one threshold for all pixels, and average precision."""
    marked = [one for one in tested if not one.label or one.mask.any()]
    values = torch.cat([one.anomaly_map.flatten() for one in marked])
    true = torch.cat([truth(one).flatten() for one in marked])
    order = values.argsort(descending=True)
    hits = true[order].double().cumsum(0)
    found = 2 * hits / (torch.arange(1, len(order) + 1) + true.sum())
    return {"pixel best": float(found.max()), "pixel AP": binary_average_precision(values, true.long(), None).item()}


def hidden(model: IsuGan, defective: list[Seen]) -> dict[str, float]:
    """The errors of the cycle n -> repaired -> n without and with invisible noise, in grey levels."""
    n = torch.stack([one.image for one in defective])[:, None] * 2 - 1
    noise = torch.randn(n.shape, generator=torch.Generator().manual_seed(0)) * 2 * NOISE
    errors = []
    with torch.inference_mode():
        for part in (torch.zeros_like(noise), noise):
            back = [
                model.g_p2n(model.model.generator(image[None].to(DEVICE)) + extra.to(DEVICE))[0].cpu()
                for image, extra in zip(n, part, strict=True)
            ]
            errors.append(float((torch.stack(back) - n).abs().mean()) * 127.5)
    return {"cycle error": errors[0], "cycle error, noise": errors[1]}


def figures(model: IsuGan, trained: list[Seen], tested: list[Seen]) -> dict[str, float]:
    """Everything that a run is measured by."""
    (scores, labels), (test_scores, test_labels) = (
        (np.array([one.score for one in seen]), np.array([one.label for one in seen])) for seen in (trained, tested)
    )
    training, best = best_threshold(scores, labels), best_threshold(test_scores, test_labels)
    return {
        "AUROC": binary_auroc(torch.from_numpy(test_scores), torch.from_numpy(test_labels)).item(),
        **image_figures(tested, training, "training"),
        **image_figures(tested, best, "best"),
        **pixel_figures(tested),
        "MSE": float(np.mean([one.error for one in tested if not one.label])),
        **hidden(model, [one for one in trained if one.label]),
        "threshold training": training,
        "threshold best": best,
    }


# Runs


def sheet(tested: list[Seen], threshold: float, path: Path) -> None:
    """Draw ten test images: of each type of defect the first ones by name."""
    types = sorted({one.defect_type for one in tested if one.label})
    ordered = sorted((one for one in tested if one.label), key=lambda one: one.path.name)
    chosen = [one for kind in types for one in [one for one in ordered if one.defect_type == kind][:2]][:SHEET_ROWS]
    chosen += [one for one in tested if not one.label][: SHEET_ROWS - len(chosen)]
    rows = [
        torch.cat(
            [one.image, one.repaired, 2 * one.anomaly_map, mask_of(one, threshold).float(), truth(one).float()], 1
        )
        for one in chosen
    ]
    Image.fromarray((255 * torch.cat(rows).clamp(0, 1)).byte().numpy()).save(path)


def make_model(options: Namespace, name: str) -> IsuGan:
    """Give a new model; all variants have the same budget."""
    return IsuGan(
        (options.size, options.size),
        width=options.width,
        residual_blocks=options.residual_blocks,
        iterations=options.iterations,
        **VARIANTS[name],
        evaluator=False,
        visualizer=False,
    )


def train(options: Namespace, model: IsuGan, data: FewNormals, folder: Path) -> float:
    """Train a model, or take the weights that a former run has left; gives the seconds that it took."""
    checkpoint = folder / "trained.ckpt"
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(kept["state_dict"])
        return kept["seconds"]
    engine = Engine(
        default_root_dir=folder,
        accelerator="auto",
        devices=1,
        precision=options.precision,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
    )
    start = time.perf_counter()
    engine.fit(model, datamodule=data)
    seconds = time.perf_counter() - start
    partial = checkpoint.with_suffix(".part")
    torch.save({"state_dict": model.state_dict(), "seconds": seconds}, partial)
    os.replace(partial, checkpoint)
    return seconds


def best_share(shares: list[float], trained: list[Seen]) -> float:
    """The share of pixels whose mean tells the training images best apart."""
    maps = torch.stack([one.anomaly_map for one in trained])[:, None]
    labels = torch.tensor([one.label for one in trained])
    return max(shares, key=lambda share: binary_auroc(top_mean(maps, share), labels).item())


def run(options: Namespace, name: str, stem: Path) -> None:
    """Train a variant, and keep what it says."""
    seed_everything(options.seed)
    root = Path(os.environ["DEFECT_DATA_ROOT"]) / "magnetic_tile"
    base = MagneticTile(root, eval_batch_size=1, num_workers=options.workers)
    data, model = FewNormals(base, options.defective, options.normal), make_model(options, name)
    data.prepare_data()
    data.setup()
    seconds = train(options, model, data, stem.parent / "models" / stem.name)
    model.model.score_share = best_share(options.score_shares, list(look(model, data.train_data)))
    trained, tested = (list(look(model, dataset)) for dataset in (data.train_data, data.test_data))
    found = figures(model, trained, tested) | {"score share": model.model.score_share, "training s": seconds}
    rows = [
        (kind, str(s.path), s.label, s.score, s.error) for kind, x in (("train", trained), ("test", tested)) for s in x
    ]
    pd.DataFrame(rows, columns=["split", "image", "label", "score", "MSE"]).to_csv(
        stem.with_suffix(".csv"), index=False
    )
    sheet(tested, found["threshold training"], stem.with_suffix(".png"))
    # Written last: a run without it is repeated.
    stem.with_suffix(".json").write_text(json.dumps(found))


def main() -> None:
    """Run what is missing, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--residual-blocks", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=5000)
    parser.add_argument(
        "--score-shares",
        nargs="*",
        type=float,
        default=[0.001, 0.01, 0.05],
        help="of the highest pixels, whose mean is the score; the one is taken that tells training images best apart",
    )
    parser.add_argument("--normal", type=int, default=100, help="normal training images")
    parser.add_argument("--defective", type=int, default=50, help="defective training images")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=["isugan", "cyclegan"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--out", type=Path, default=Path("results/isugan"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = f"{options.size}-{options.width}-{options.residual_blocks}-{options.iterations}"
    setting = f"{shape}-{options.normal}-{options.defective}-{options.precision}-{options.seed}"
    rows = []
    for name in options.variants:
        stem = options.out / setting / name
        stem.parent.mkdir(parents=True, exist_ok=True)
        if not stem.with_suffix(".json").exists():
            run(options, name, stem)
        rows.append({"variant": name, **json.loads(stem.with_suffix(".json").read_text())})
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for one in rows:
        print("| " + " | ".join(f"{value:.4g}" if isinstance(value, float) else value for value in one.values()) + " |")


if __name__ == "__main__":
    main()
