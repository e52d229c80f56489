"""Whether SIDN's branches parted: radii of the hyperspheres (eq. 13, 14) and a plot of the features on two axes."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from anomalib.data import Batch
from lightning.pytorch import Callback, Trainer
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from .lightning_model import Sidn
from .loss import center_loss, hypersphere_radii, squared_distances
from .torch_model import SidnModel


@torch.no_grad()
def separated_features(model: SidnModel, images: Tensor) -> tuple[Tensor, Tensor]:
    """Give the features Z_t and Z_d, (B, N, d) each, of images (B, C, H, W) in [0, 1]."""
    z = model.fem(images[:, :1] - 0.5)
    return model.texture(z)[1], model.defect(z)[1]


def describe_separation(model: SidnModel, texture: Tensor, defect: Tensor) -> dict[str, Any]:
    """Put numbers to how far texture and defects parted.

    Args:
        model: The network.
        texture: Features of its texture branch, (N, d).
        defect: Features of its defect branch, (N, d).

    Returns:
        ``center_cosine`` (eq. 18, in [-1, 1], the lower the better), ``feature_cosine`` (mean over places), and for
        each branch ``radii`` (eq. 14; ``None`` for a centre that no feature is nearest to) and ``sizes``, the number of
        features nearest to each centre.
    """
    result: dict[str, Any] = {
        "center_cosine": float(center_loss(model.texture.centers, model.defect.centers)),
        "feature_cosine": float(torch.cosine_similarity(texture, defect, dim=-1).mean()),
    }
    for name, features, branch in (("texture", texture, model.texture), ("defect", defect, model.defect)):
        radii = hypersphere_radii(features, branch.centers).tolist()
        nearest = squared_distances(features, branch.centers).argmin(-1)
        sizes = torch.bincount(nearest, minlength=len(branch.centers)).tolist()
        result[name] = {"radii": [None if radius != radius else radius for radius in radii], "sizes": sizes}
    return result


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
            model = pl_module.model.float().cpu() if texture.device != pl_module.device else pl_module.model
            _write(folder / "separation.json", json.dumps(describe_separation(model, texture, defect), indent=2).encode())
            _draw(folder / "separation.png", model, texture, defect)
        self._features.clear()


def _draw(path: Path, model: SidnModel, texture: Tensor, defect: Tensor) -> None:
    axes = PCA(2).fit(torch.cat([texture, defect]).numpy())
    figure = Figure((6, 5), layout="constrained")
    plot = figure.add_subplot(xlabel="first principal axis", ylabel="second principal axis")
    for name, features, branch, colour in (
        ("texture", texture, model.texture, "tab:blue"),
        ("defect", defect, model.defect, "tab:red"),
    ):
        plot.scatter(*axes.transform(features.numpy()).T, s=4, alpha=0.4, c=colour, label=f"features, {name} branch")
        centers = axes.transform(branch.centers.detach().numpy()).T
        plot.scatter(*centers, s=60, marker="X", edgecolors="white", c=colour, label=f"centres, {name} branch")
    plot.legend()
    partial = path.with_name(f"{path.name}.part")
    figure.savefig(partial, format="png", dpi=120)
    os.replace(partial, path)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(content)
    os.replace(partial, path)
