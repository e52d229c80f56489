"""Small versions of the models of this package, which train on the embedded data in a second or two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from anomalib.models.components import AnomalibModule
from torch.utils.data import DataLoader, DistributedSampler

from anomalib_defect_plugins.data import TextureDefects, WithDefects
from anomalib_defect_plugins.models.cutpaste import CutPaste
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.models.htpgan import HtpGan
from anomalib_defect_plugins.models.isugan import IsuGan
from anomalib_defect_plugins.models.onestage import OneStage
from anomalib_defect_plugins.models.sidn import Sidn

SIDE = 64
"""Height and width of the images, in pixels."""

MODELS: dict[str, tuple[Callable[..., AnomalibModule], dict[str, Any], dict[str, Any] | None]] = {
    "htpgan": (HtpGan, {"num_scales": 3, "min_size": 32, "width": 4, "iterations_per_scale": 5}, None),
    "sidn": (
        Sidn,
        {"backbone": "test_resnet.r160_in1k", "pre_trained": False, "channels": 4, "clusters": 3, "iterations": 15},
        None,
    ),
    "cutpaste": (
        CutPaste,
        {"backbone": "test_efficientnet_gn.r160_in1k", "pre_trained": False, "iterations": 15},
        None,
    ),
    "onestage": (OneStage, {"width": "small", "backbone": None, "score": "mean", "iterations": 15}, {"real": 8}),
    "isugan": (
        IsuGan,
        {"backbone": None, "width": 4, "residual_blocks": 1, "batch_size": 8, "pool_size": 6, "iterations": 15},
        {"real": 8, "masks": False},
    ),
    "defectgan": (
        DefectGan,
        {"channels": 4, "residual_blocks": 1, "batch_size": 8, "critic_updates": 2, "iterations": 15},
        {"real": 8, "masks": False},
    ),
}
"""Class of each model, its arguments, and the arguments of ``WithDefects`` for models that train on defects.

Each trains for three epochs, of 5 steps with 40 normal images in batches of 8, or of 6 steps with 48 images.
"""


def make_model(name: str, **changes: Any) -> AnomalibModule:
    """Create a model without a visualizer."""
    kind, arguments, _ = MODELS[name]
    return kind(image_size=(SIDE, SIDE), visualizer=False, **{"evaluator": False, **arguments, **changes})


def make_data(
    name: str, root: Path, batch_size: int = 8, workers: int = 0, distributed: bool = False
) -> AnomalibDataModule:
    """Create the data module of a model. Training images are not shuffled, since a checkpoint does not store the order.

    Args:
        name: Name of the model.
        root: Folder of the embedded data, which is generated if the folder is empty.
        batch_size: Training batch size.
        workers: Number of data-loading processes.
        distributed: Whether to divide the images among processes, in order; Lightning's sampler would shuffle them.
    """
    base = TextureDefects(
        root, image_size=SIDE, train_batch_size=batch_size, eval_batch_size=20, num_workers=workers, category="gravel"
    )
    defects = MODELS[name][2]
    data = base if defects is None else WithDefects(base, **defects)

    def train_dataloader() -> DataLoader[Any]:
        images = data.train_data
        sampler: Any = DistributedSampler(images, shuffle=False) if distributed else None
        return DataLoader(
            images, batch_size=batch_size, sampler=sampler, collate_fn=images.collate_fn, num_workers=workers
        )

    data.train_dataloader = train_dataloader  # type: ignore[method-assign]
    return data
