"""Whether SIDN's branches parted: radii of the hyperspheres (eq. 13, 14) and a plot of the features on two axes."""

import io
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from anomalib.data import Batch
from lightning.pytorch import Callback, Trainer
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from anomalib_defect_plugins.models.sidn.lightning_model import Sidn
from anomalib_defect_plugins.models.sidn.loss import center_loss, hypersphere_radii, squared_distances
from anomalib_defect_plugins.models.sidn.torch_model import Branch, SidnModel


@torch.no_grad()
def separated_features(model: SidnModel, images: Tensor) -> tuple[Tensor, Tensor]:
    """Give the features Z_t and Z_d, (B, N, d) each, of images (B, C, H, W) in [0, 1]."""
    z = model.fem(images[:, :1] - 0.5)
    return model.texture(z)[1], model.defect(z)[1]


def describe_separation(model: SidnModel, texture: Tensor, defect: Tensor) -> dict[str, Any]:
    """Put numbers to how far texture and defects parted.

    Args:
        model: The network.
        texture: Features of its texture branch, (N, d), float32 on the CPU.
        defect: Features of its defect branch, likewise.

    Returns:
        ``center_cosine`` (eq. 18, in [-1, 1], the lower the better), ``feature_cosine`` (mean over places), and for
        each branch ``radii`` (eq. 14; ``None`` for a centre that no feature is nearest to) and ``sizes``, the number of
        features nearest to each centre.
    """
    centers = {"texture": _centers(model.texture), "defect": _centers(model.defect)}
    result: dict[str, Any] = {
        "center_cosine": float(center_loss(*centers.values())),
        "feature_cosine": float(torch.cosine_similarity(texture, defect, dim=-1).mean()),
    }
    for name, features in (("texture", texture), ("defect", defect)):
        radii = hypersphere_radii(features, centers[name]).tolist()
        nearest = squared_distances(features, centers[name]).argmin(-1)
        sizes = torch.bincount(nearest, minlength=len(centers[name])).tolist()
        result[name] = {"radii": [None if math.isnan(radius) else radius for radius in radii], "sizes": sizes}
    return result


def _centers(branch: Branch) -> Tensor:
    return branch.centers.detach().float().cpu()


class SeparationPlot(Callback):
    """At each validation, write ``separation.png`` and ``separation.json`` into the folder of the results.

    The plot shows the features of both branches and their cluster centres on the two principal axes. Use it with
    ``--trainer.callbacks anomalib_defect_plugins.models.sidn.SeparationPlot``.

    Args:
        batches: How many validation batches are looked at.
    """

    def __init__(self, batches: int = 4) -> None:
        self.batches = batches
        self._features: list[tuple[Tensor, Tensor]] = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Sidn, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the features of a batch."""
        del trainer, outputs, dataloader_idx
        if batch_idx < self.batches:
            found = separated_features(pl_module.model, batch.image)
            self._features.append(tuple(part.flatten(0, 1).float().cpu() for part in found))

    def on_validation_end(self, trainer: Trainer, pl_module: Sidn) -> None:
        """Write the files."""
        if self._features and trainer.is_global_zero and not trainer.sanity_checking:
            texture, defect = (torch.cat(parts) for parts in zip(*self._features, strict=True))
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            numbers = describe_separation(pl_module.model, texture, defect)
            _write(folder / "separation.json", json.dumps(numbers, indent=2).encode())
            _write(folder / "separation.png", _draw(pl_module.model, texture, defect))
        self._features.clear()


def _draw(model: SidnModel, texture: Tensor, defect: Tensor) -> bytes:
    axes = PCA(2).fit(torch.cat([texture, defect]).numpy())
    figure = Figure((6, 5), layout="constrained")
    plot = figure.add_subplot(xlabel="first principal axis", ylabel="second principal axis")
    for name, features, branch, colour in (
        ("texture", texture, model.texture, "tab:blue"),
        ("defect", defect, model.defect, "tab:red"),
    ):
        plot.scatter(*axes.transform(features.numpy()).T, s=4, alpha=0.4, c=colour, label=f"features, {name} branch")
        centers = axes.transform(_centers(branch).numpy()).T
        plot.scatter(*centers, s=60, marker="X", edgecolors="white", c=colour, label=f"centres, {name} branch")
    plot.legend()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(content)
    os.replace(partial, path)
