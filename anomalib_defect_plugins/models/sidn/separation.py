"""Diagnostics of SIDN's feature separation: hypersphere radii (eq. 13, 14) and a plot of the features."""

import io
import json
import math
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.data import Batch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from anomalib_defect_plugins.core.files import write_bytes, write_text
from anomalib_defect_plugins.models.sidn.loss import cosines, hypersphere_radii, squared_distances
from anomalib_defect_plugins.models.sidn.torch_model import Branch, SidnModel


@torch.no_grad()
def separated_features(model: SidnModel, images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the features Z_t and Z_d, each of shape (B, N, d), of images (B, C, H, W), float in [0, 1]."""
    z, maps = model.extract(images)
    texture, defect = (
        branch.extract(z, maps)[-1].flatten(2).transpose(1, 2) for branch in (model.texture, model.defect)
    )
    return texture, defect


def describe_separation(model: SidnModel, texture: Tensor, defect: Tensor) -> dict[str, Any]:
    """Measure the separation of texture and defect features.

    Args:
        model: Network.
        texture: Features of the texture branch, shape (N, d), float32 on the CPU.
        defect: Features of the defect branch, same shape and type.

    Returns:
        ``center_cosine`` (mean over the pairs of a texture and a defect centre, in [-1, 1]; about 0 where the branches
        are separated), ``feature_cosine`` (mean over positions), and for each branch ``radii`` (eq. 14; ``None`` for a
        centre that is not the nearest of any feature), ``sizes``, the number of features nearest to each centre, and
        ``own_cosine``, the mean over the pairs of its centres: near 1, they have collapsed.
    """
    centers = {"texture": _centers(model.texture), "defect": _centers(model.defect)}
    result: dict[str, Any] = {
        "center_cosine": float(cosines(*centers.values()).mean()),
        "feature_cosine": float(torch.cosine_similarity(texture, defect, dim=-1).mean()),
    }
    for name, features in (("texture", texture), ("defect", defect)):
        radii = hypersphere_radii(features, centers[name]).tolist()
        nearest = squared_distances(features, centers[name]).argmin(-1)
        sizes = torch.bincount(nearest, minlength=len(centers[name])).tolist()
        result[name] = {
            "radii": [None if math.isnan(radius) else radius for radius in radii],
            "sizes": sizes,
            "own_cosine": own_cosine(centers[name]),
        }
    return result


def own_cosine(centers: Tensor) -> float:
    """Mean cosine similarity of the pairs of different centres (K, d); NaN for a single centre."""
    pairs = cosines(centers, centers)[~torch.eye(len(centers), dtype=torch.bool)]
    return float(pairs.mean())


def _centers(branch: Branch) -> Tensor:
    return branch.centers.detach().float().cpu()


class SeparationPlot(Callback):
    """Write ``separation.png`` and ``separation.json`` to the results folder at each validation.

    The plot shows the features of both branches and their cluster centres on the two principal axes. Use it with
    ``--trainer.callbacks anomalib_defect_plugins.models.sidn.SeparationPlot``.

    Args:
        batches: Maximum number of validation batches to use.
    """

    def __init__(self, batches: int = 4) -> None:
        self.batches = batches
        self._features: list[tuple[Tensor, Tensor]] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch[Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the features of a batch."""
        del trainer, outputs, dataloader_idx
        if batch_idx < self.batches:
            texture, defect = separated_features(cast(SidnModel, pl_module.model), cast(Tensor, batch.image))
            self._features.append((texture.flatten(0, 1).float().cpu(), defect.flatten(0, 1).float().cpu()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files."""
        if self._features and trainer.is_global_zero and not trainer.sanity_checking:
            texture, defect = (torch.cat(batches) for batches in zip(*self._features, strict=True))
            folder, model = Path(trainer.default_root_dir), cast(SidnModel, pl_module.model)
            write_text(folder / "separation.json", json.dumps(describe_separation(model, texture, defect), indent=2))
            write_bytes(folder / "separation.png", _draw(model, texture, defect))
        self._features.clear()


def _draw(model: SidnModel, texture: Tensor, defect: Tensor) -> bytes:
    pca = PCA(2).fit(torch.cat([texture, defect]).numpy())
    figure = Figure((6, 5), layout="constrained")
    plot = figure.add_subplot(xlabel="first principal axis", ylabel="second principal axis")
    for name, features, branch, colour in (
        ("texture", texture, model.texture, "tab:blue"),
        ("defect", defect, model.defect, "tab:red"),
    ):
        x, y = pca.transform(features.numpy()).T
        plot.scatter(x, y, s=4, alpha=0.4, c=colour, label=f"features, {name} branch")
        x, y = pca.transform(_centers(branch).numpy()).T
        plot.scatter(x, y, s=60, marker="X", edgecolors="white", c=colour, label=f"centres, {name} branch")
    plot.legend()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
