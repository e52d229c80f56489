"""Compare HTP-GAN with a head that discriminates transformations, on validation images of TextureDefects.

    python experiments/htpgan/transformations.py --categories brick grass gravel --seeds 0 1

HTDG (Sheynin, Benaim, Wolf, "A Hierarchical Transformation-Discriminating Generative Model for Few Shot Anomaly
Detection", ICCV 2021) tells at each scale by which transformation an image was changed, and a location is anomalous
where the transformations are not recognised. Here, the same pyramid and discriminators as HTP-GAN's have an output for
each of the eight flips and rotations by 90 degrees; they are trained on the transformed normal image alone, without
generators. The value of a pixel is the mean of its eight cross-entropies, in deviations on the normal image,
averaged over the scales.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from anomalib.data import AnomalibDataset
from lightning import seed_everything
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.classification import binary_auroc

sys.path.append(str(Path(__file__).parents[1]))

from common import QUIET, add_run_options, create_engine, markdown, mean_rows, transformed

from anomalib_defect_plugins.data import TextureDefects
from anomalib_defect_plugins.layers import top_mean
from anomalib_defect_plugins.models.htpgan import HtpGan
from anomalib_defect_plugins.models.htpgan.torch_model import Discriminator, HtpGanModel

SIDE, SCALES, MIN_SIZE, ITERATIONS = 112, 5, 28, 100
"""As in the comparison of generators."""

TRANSFORMATIONS = 8
"""Flips and rotations by 90 degrees."""


def transform(image: Tensor, index: int) -> Tensor:
    """Return a square image (..., H, W) after one of the transformations."""
    return torch.rot90(image.flip(-1) if index >= 4 else image, index % 4, (-2, -1))


def restore(image: Tensor, index: int) -> Tensor:
    """Invert :func:`transform`."""
    image = torch.rot90(image, -(index % 4), (-2, -1))
    return image.flip(-1) if index >= 4 else image


class Transformations(nn.Module):
    """A classifier of transformations at each scale of HTP-GAN's pyramid.

    Args:
        blocks: Number of conv-blocks of each classifier.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.pyramid = HtpGanModel((SIDE, SIDE), SCALES, MIN_SIZE)
        self.classifiers = nn.ModuleList()
        for size in self.pyramid.sizes:
            classifier = Discriminator(8, size, texture_module=False, blocks=blocks)
            last = cast(nn.Conv2d, classifier.head[-1])
            classifier.head[-1] = nn.Conv2d(last.in_channels, TRANSFORMATIONS, 1)
            self.classifiers.append(classifier)
        self.moments: list[tuple[Tensor, Tensor]] = []

    def entropies(self, image: Tensor, scale: int) -> Tensor:
        """Return the mean cross-entropy of the transformations at each pixel of a scale, shape (B, 1, h, w)."""
        small = self.pyramid.at_scale(image, scale)
        maps = []
        for index in range(TRANSFORMATIONS):
            logits = self.classifiers[scale](transform(small, index))
            maps.append(restore(-logits.log_softmax(1)[:, index : index + 1], index))
        return torch.stack(maps).mean(0)

    def fit(self, image: Tensor) -> None:
        """Train all scales on the normal image, shape (1, 3, H, W)."""
        for scale, classifier in enumerate(self.classifiers):
            classifier.train()
            optimizer = torch.optim.Adam(classifier.parameters(), 5e-4)
            small = self.pyramid.at_scale(image, scale).detach()
            batch = torch.cat([transform(small, index) for index in range(TRANSFORMATIONS)])
            target = torch.arange(TRANSFORMATIONS)[:, None, None].expand(-1, *small.shape[-2:])
            for _ in range(ITERATIONS):
                optimizer.zero_grad()
                functional.cross_entropy(classifier(batch), target).backward()
                optimizer.step()
            classifier.eval()
            with torch.no_grad():
                values = self.entropies(image, scale)
            self.moments.append((values.mean(), values.std()))

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Return anomaly maps, shape (B, 1, H, W)."""
        maps = [
            functional.interpolate((self.entropies(image, scale) - mean) / std, image.shape[-2:], mode="bilinear")
            for scale, (mean, std) in enumerate(self.moments)
        ]
        return torch.stack(maps).mean(0)


def figures(maps: Tensor, masks: Tensor) -> dict[str, float]:
    """Return image AUROC, of the mean of the highest pixels, and pixel AUROC."""
    labels = masks.flatten(1).any(1).long()
    return {
        "image AUROC": float(binary_auroc(top_mean(maps, 0.01), labels)),
        "pixel AUROC": float(binary_auroc(maps.flatten(), masks.flatten().long())),
    }


def images_of(model: HtpGan, dataset: AnomalibDataset) -> tuple[Tensor, Tensor]:
    """Return all images (N, 3, H, W) and masks (N, 1, H, W) of a data set."""
    images, masks = [], []
    for _, image, mask in transformed(model, dataset):
        images.append(image.cpu())
        masks.append(torch.zeros(1, 1, SIDE, SIDE) if mask is None else torch.as_tensor(mask).reshape(1, 1, SIDE, SIDE))
    return torch.cat(images), torch.cat(masks).float() > 0


def run(options: Any, category: str, seed: int) -> list[dict[str, Any]]:
    """Train HTP-GAN and the classifiers on the same image, and return the figures of each and of both."""
    seed_everything(seed)
    data = TextureDefects(category=category, image_size=SIDE)
    pyramid: dict[str, Any] = {"image_size": (SIDE, SIDE), "num_scales": SCALES, "min_size": MIN_SIZE}
    model = HtpGan(**pyramid, iterations_per_scale=ITERATIONS, **QUIET)
    create_engine(options.out).fit(model, datamodule=data)
    images, masks = images_of(model, data.val_data)
    reference = images_of(model, data.train_data)[0][:1]
    with torch.no_grad():
        recipe = model.model.cpu().eval()(images).anomaly_map
        normal = model.model(reference).anomaly_map
    recipe = (recipe - normal.mean()) / normal.std()
    rows = [{"category": category, "variant": "recipe", "seed": seed, **figures(recipe, masks)}]
    for blocks in (2, 4):
        classifiers = Transformations(blocks)
        classifiers.fit(reference)
        maps = classifiers(images)
        names = {f"transformations, {blocks} blocks": maps, f"recipe + transformations, {blocks} blocks": recipe + maps}
        rows += [
            {"category": category, "variant": name, "seed": seed, **figures(values, masks)}
            for name, values in names.items()
        ]
    return rows


def main() -> None:
    """Run all categories and seeds, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--categories", nargs="*", default=["brick", "grass", "gravel"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    add_run_options(parser, "results/htpgan/transformations")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for category in options.categories for seed in options.seeds for row in run(options, category, seed)]
    print(markdown(mean_rows(pd.DataFrame(rows), ["category", "variant"])))


if __name__ == "__main__":
    main()
