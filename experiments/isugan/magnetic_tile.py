"""Measure ISU-GAN on Magnetic Tile, and print the tables of the README.

    DEFECT_DATA_ROOT=... OMP_NUM_THREADS=1 python experiments/isugan/magnetic_tile.py --seeds 0 1 2
    DEFECT_DATA_ROOT=... python experiments/isugan/magnetic_tile.py --variants paper cyclegan --width 64 \
        --residual-blocks 9 --iterations 10000                                          # for a GPU

Trained on 100 normal images, synthetic defects on them, and one image of each of 40 defective tiles, without masks, and
tested on the images of the other tiles: those of ``configs/benchmark/regimes.yaml``. The seed selects the tiles.

The columns "AUROC density", "AUROC repair" and "AUROC SSIM" have parts of the same model: the density of normal
features, which uses no generator, what a repair changes in the features of the encoder (``--variants repair``), and the
paper's comparison.

Two thresholds of image scores are used: ``training`` has the highest F1 on the training images and uses no test image;
``best`` has the highest F1 on the test images, which is an upper bound. Masks are Otsu's in the images above the
threshold. ``pixel best`` is the F1 of the best single threshold for all test pixels, another upper bound. Defective
test images that were published with an empty mask count as images, but not as pixels. Pixels are those of the network.

``hidden`` tests for steganography: the error of n -> repaired -> n in grey levels, and the same with invisible noise of
two grey levels added to the repaired image. If the second is far above the first, the repaired image hides the defect
instead of lacking it.

Without a backbone, the score of an image is the mean of the highest pixels of its map; their fraction is chosen on the
training images.

Finished runs are stored and not repeated: metrics as JSON, scores as CSV, and a PNG of ten images with one row each:
input, repaired image, anomaly map, mask at the ``training`` threshold, true mask.
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
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from lightning import seed_everything
from PIL import Image
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

sys.path.append(str(Path(__file__).parents[1]))

from common import (
    DEVICE,
    QUIET,
    add_run_options,
    best_pixel_f1,
    create_engine,
    data_root,
    markdown,
    once,
    timed_fit,
    transformed,
)

from anomalib_defect_plugins.core.files import atomic_path
from anomalib_defect_plugins.data import MagneticTile, WithDefects
from anomalib_defect_plugins.layers import top_mean
from anomalib_defect_plugins.models.isugan import IsuGan
from anomalib_defect_plugins.models.isugan.post_processing import otsu_mask
from anomalib_defect_plugins.models.isugan.similarity import anomaly_map_of, repair_error
from anomalib_defect_plugins.models.isugan.torch_model import IsuGanModel

Array = npt.NDArray[Any]

PAPER: dict[str, Any] = {"backbone": None, "layers": False, "paired_weight": 0.0}
PLAIN = PAPER | {"skip": False, "involution": False, "squeeze_excitation": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "repair": {"repair_weight": 1.0},
    "paper": PAPER,
    "cyclegan": PLAIN,
    "skip": PLAIN | {"skip": True},
    "involution": PLAIN | {"involution": True},
    "se": PLAIN | {"squeeze_excitation": True},
}
"""Arguments of the models: the defaults, the paper's, and the other generators of its Table 3."""

SIZES = ("width", "residual_blocks", "iterations")
HELD_OUT = 40
NOISE = 2 / 255
SHEET_ROWS = 10


class FewNormals(WithDefects):
    """The test images of ``configs/benchmark/regimes.yaml``, and a limited number of normal training images.

    Args:
        base: Data module to take the images from.
        real: Number of defective training images, one of each tile, at most 40.
        normal: Number of normal training images.
        seed: Seed of the tiles and of the normal images.
    """

    def __init__(self, base: MagneticTile, real: int, normal: int, seed: int) -> None:
        super().__init__(
            base, real, per_object=1, held_out=HELD_OUT, masks=False, synthetic=["perturb", "shading"], seed=seed
        )
        self.drawn = normal

    def _setup(self, stage: str | None = None) -> None:
        super()._setup(stage)
        label = self.train_data.samples.label_index.to_numpy()
        normal, defective = (np.flatnonzero(label == kind) for kind in (LabelName.NORMAL, LabelName.ABNORMAL))
        kept = np.random.default_rng(self.seed).permutation(normal)[: self.drawn]
        self.train_data.subsample([int(row) for row in sorted([*kept, *defective])], inplace=True)


class ImagePrediction(NamedTuple):
    """Prediction for an image; all images have the shape (H, W), in [0, 1]."""

    path: Path
    defect_type: str
    label: int
    score: float
    error: float
    """Mean squared error of the repair, eq. 16."""
    image: Tensor
    repaired: Tensor
    anomaly_map: Tensor
    mask: Tensor | None
    """True mask, if there is one."""
    parts: dict[str, float]
    """Scores of the parts of the model alone."""


def predict(model: IsuGan, dataset: AnomalibDataset) -> Iterator[ImagePrediction]:
    """Predict the images of a data set one by one."""
    for index, (item, image, mask) in enumerate(transformed(model, dataset)):
        network, grey = cast(IsuGanModel, model.model), image[:, :1]
        with torch.inference_mode():
            repaired, output = network.inspect(image)
            distances = {} if network.encoder is None else network.distances(image, repaired)
            parts = {name: float(top_mean(distance, network.score_share)) for name, distance in distances.items()}
            parts["SSIM"] = float(top_mean(anomaly_map_of(grey, repaired), network.score_share))
        planes = [tensor.reshape(image.shape[-2:]).float().cpu() for tensor in (grey, repaired, output.anomaly_map)]
        yield ImagePrediction(
            path=Path(item.image_path),
            defect_type=dataset.samples.defect_type.iloc[index],
            label=int(item.gt_label),
            score=float(output.pred_score),
            error=float(repair_error(grey, repaired)),
            image=planes[0],
            repaired=planes[1],
            anomaly_map=planes[2],
            mask=None if mask is None else mask.bool(),
            parts=parts,
        )


# Metrics


def f1(flagged: Array, true: Array) -> float:
    """F1 with defects as positives, eq. 13 to 15, which call the usual TP "TN"."""
    return 2 * float((flagged & true).sum()) / max(1, int(flagged.sum()) + int(true.sum()))


def best_threshold(scores: Array, labels: Array) -> float:
    """Return the threshold with the highest F1, halfway between two scores."""
    values = np.unique(scores)
    candidates = [0.0, *(values[1:] + values[:-1]) / 2]
    return float(max(candidates, key=lambda threshold: f1(scores > threshold, labels.astype(bool))))


def image_metrics(tested: list[ImagePrediction], threshold: float, name: str) -> dict[str, float]:
    """Compute accuracy and F1 of the images, and pixel F1 of the masks."""
    labels = np.array([one.label for one in tested], dtype=bool)
    flagged = np.array([one.score for one in tested]) > threshold
    marked = [one for one in tested if not one.label or truth(one).any()]
    masks = torch.stack([mask_of(one, threshold) for one in marked]).numpy()
    true = torch.stack([truth(one) for one in marked]).numpy()
    return {
        f"accuracy {name}": float((flagged == labels).mean()),
        f"F1 {name}": f1(flagged, labels),
        f"pixel F1 {name}": f1(masks, true),
    }


def mask_of(one: ImagePrediction, threshold: float) -> Tensor:
    """Return the predicted mask at a threshold of the image scores, shape (H, W)."""
    return otsu_mask(one.anomaly_map[None], torch.tensor([one.score > threshold]))[0]


def truth(one: ImagePrediction) -> Tensor:
    """Return the true mask, which is empty in a normal image."""
    return one.mask if one.mask is not None else torch.zeros_like(one.image, dtype=torch.bool)


def auroc(scores: list[float], tested: list[ImagePrediction]) -> float:
    """Compute the AUROC of image scores."""
    return binary_auroc(torch.tensor(scores), torch.tensor([one.label for one in tested])).item()


def types(tested: list[ImagePrediction]) -> dict[str, float]:
    """Compute the AUROC of each type of defect against all normal images."""
    chosen = {
        kind: [one for one in tested if not one.label or one.defect_type == kind]
        for kind in sorted({one.defect_type for one in tested if one.label})
    }
    return {f"AUROC {kind}": auroc([one.score for one in some], some) for kind, some in chosen.items()}


def pixel_metrics(tested: list[ImagePrediction]) -> dict[str, float]:
    """Compute the best F1 of one threshold for all pixels, and average precision."""
    marked = [one for one in tested if not one.label or truth(one).any()]
    values = torch.cat([one.anomaly_map.flatten() for one in marked])
    true = torch.cat([truth(one).flatten() for one in marked])
    average_precision = binary_average_precision(values, true.long(), None).item()
    pixel_auroc = binary_auroc(values, true.long(), None).item()
    return {"pixel best": best_pixel_f1(values, true), "pixel AP": average_precision, "pixel AUROC": pixel_auroc}


def hidden(model: IsuGan, defective: list[ImagePrediction]) -> dict[str, float]:
    """Compute the error of the cycle n -> repaired -> n without and with invisible noise, in grey levels."""
    n = torch.stack([one.image for one in defective])[:, None] * 2 - 1
    noise = torch.randn(n.shape, generator=torch.Generator().manual_seed(0)) * 2 * NOISE
    errors = []
    with torch.inference_mode():
        for added in (torch.zeros_like(noise), noise):
            restored = [
                model.g_p2n(model.model.generator(image[None].to(DEVICE)) + extra.to(DEVICE))[0].cpu()
                for image, extra in zip(n, added, strict=True)
            ]
            errors.append(float((torch.stack(restored) - n).abs().mean()) * 127.5)
    return {"cycle error": errors[0], "cycle error, noise": errors[1]}


def compute_metrics(model: IsuGan, trained: list[ImagePrediction], tested: list[ImagePrediction]) -> dict[str, float]:
    """Compute all metrics of a run."""
    (scores, labels), (test_scores, test_labels) = (
        (np.array([one.score for one in predictions]), np.array([one.label for one in predictions]))
        for predictions in (trained, tested)
    )
    training, best = best_threshold(scores, labels), best_threshold(test_scores, test_labels)
    return {
        "AUROC": auroc([one.score for one in tested], tested),
        **{f"AUROC {part}": auroc([one.parts[part] for one in tested], tested) for part in tested[0].parts},
        **types(tested),
        **image_metrics(tested, training, "training"),
        **image_metrics(tested, best, "best"),
        **pixel_metrics(tested),
        "MSE": float(np.mean([one.error for one in tested if not one.label])),
        **hidden(model, [one for one in trained if one.label]),
        "threshold training": training,
        "threshold best": best,
    }


# Runs


def sheet(tested: list[ImagePrediction], threshold: float, path: Path) -> None:
    """Draw ten test images: the first two of each defect type by name, then normal ones."""
    types = sorted({one.defect_type for one in tested if one.label})
    ordered = sorted((one for one in tested if one.label), key=lambda one: one.path.name)
    chosen = [one for kind in types for one in [one for one in ordered if one.defect_type == kind][:2]][:SHEET_ROWS]
    chosen += [one for one in tested if not one.label][: SHEET_ROWS - len(chosen)]
    highest = max(float(one.anomaly_map.max()) for one in chosen)
    rows = [
        torch.cat(
            [one.image, one.repaired, one.anomaly_map / highest, mask_of(one, threshold).float(), truth(one).float()], 1
        )
        for one in chosen
    ]
    Image.fromarray((255 * torch.cat(rows).clamp(0, 1)).byte().numpy()).save(path)


def make_model(options: Namespace, name: str) -> IsuGan:
    """Create a model; the options that are passed apply to all variants."""
    sizes = {name: vars(options)[name] for name in SIZES if vars(options)[name] is not None}
    return IsuGan((options.size, options.size), **sizes, **VARIANTS[name], **QUIET)


def train(options: Namespace, model: IsuGan, data: FewNormals, folder: Path) -> float:
    """Train a model, or load the weights of a previous run; return the training time in seconds."""
    checkpoint = folder / "trained.ckpt"
    if checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(stored["state_dict"])
        return float(stored["seconds"])
    seconds = timed_fit(create_engine(folder, options.precision), model, data)
    with atomic_path(checkpoint) as path:
        torch.save({"state_dict": model.state_dict(), "seconds": seconds}, path)
    return seconds


def best_share(shares: list[float], trained: list[ImagePrediction]) -> float:
    """Return the fraction of highest pixels whose mean separates the training images best."""
    maps = torch.stack([one.anomaly_map for one in trained])[:, None]
    labels = torch.tensor([one.label for one in trained])
    return max(shares, key=lambda share: binary_auroc(top_mean(maps, share), labels).item())


def run(options: Namespace, name: str, seed: int, stem: Path) -> dict[str, float]:
    """Train a variant, store its predictions, and return the metrics."""
    seed_everything(seed)
    base = MagneticTile(data_root("magnetic_tile"), eval_batch_size=8, num_workers=options.workers)
    data, model = FewNormals(base, options.defective, options.normal, seed), make_model(options, name)
    data.prepare_data()
    data.setup()
    seconds = train(options, model, data, stem.parent / "models" / stem.name)
    if model.model.encoder is None:
        model.model.score_share = best_share(options.score_shares, list(predict(model, data.train_data)))
    trained, tested = (list(predict(model, dataset)) for dataset in (data.train_data, data.test_data))
    counts = {"images": len(tested), "defective": sum(one.label for one in tested)}
    metrics = counts | compute_metrics(model, trained, tested) | {"training s": seconds}
    rows = [
        (kind, str(s.path), s.label, s.score, s.error) for kind, x in (("train", trained), ("test", tested)) for s in x
    ]
    pd.DataFrame(rows, columns=["split", "image", "label", "score", "MSE"]).to_csv(
        stem.with_suffix(".csv"), index=False
    )
    sheet(tested, metrics["threshold training"], stem.with_suffix(".png"))
    return metrics


def main() -> None:
    """Run the missing variants and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--width", type=int)
    parser.add_argument("--residual-blocks", type=int)
    parser.add_argument("--iterations", type=int)
    parser.add_argument(
        "--score-shares",
        nargs="*",
        type=float,
        default=[0.001, 0.01, 0.05],
        help="fractions of highest pixels whose mean is the score; the one that separates training images best is used",
    )
    parser.add_argument("--normal", type=int, default=100, help="normal training images")
    parser.add_argument("--defective", type=int, default=HELD_OUT, help="defective training images, one of each tile")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=["recipe"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    add_run_options(parser, "results/isugan")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = "-".join(str(vars(options)[name]) for name in SIZES)
    setting = f"{options.size}-{sizes}-{options.normal}-{options.defective}-{options.precision}"
    rows = []
    for name in options.variants:
        for seed in options.seeds:
            stem = options.out / setting / f"{name}-{seed}"
            metrics = once(stem.with_suffix(".json"), partial(run, options, name, seed, stem))
            rows.append({"variant": name, "seed": seed, **metrics})
    print(markdown(rows))


if __name__ == "__main__":
    main()
