"""Every model of this package at a size at which it trains in a second or two, on the embedded data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule
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
    "sidn": (Sidn, {"channels": 4, "clusters": 3, "iterations": 15}, None),
    "cutpaste": (CutPaste, {"backbone": "test_efficientnet_gn.r160_in1k", "iterations": 15}, None),
    "onestage": (OneStage, {"width": "small", "iterations": 15}, {"real": 8}),
    "isugan": (
        IsuGan,
        {"width": 4, "residual_blocks": 1, "batch_size": 8, "pool_size": 6, "iterations": 15},
        {"real": 8, "masks": False},
    ),
    "defectgan": (
        DefectGan,
        {"channels": 4, "residual_blocks": 1, "batch_size": 8, "critic_updates": 2, "iterations": 15},
        {"real": 8, "masks": False},
    ),
}
"""By name: the class, its arguments, and those of ``WithDefects`` for a model that trains on defects.

Each trains for three epochs: 40 normal images in batches of 8 are 5 steps, 48 images 6.
"""


def make_model(name: str, **changes: Any) -> AnomalibModule:
    """Make a model, without pictures."""
    kind, arguments, _ = MODELS[name]
    return kind(image_size=(SIDE, SIDE), visualizer=False, **{"evaluator": False, **arguments, **changes})


def make_data(
    name: str, root: Path, batch_size: int = 8, workers: int = 0, distributed: bool = False
) -> AnomalibDataModule:
    """Make the data module of a model; training batches come in order, for a resumed run cannot know a shuffle.

    Args:
        name: Of the model.
        root: Folder of the embedded data, which are built there if it is empty.
        batch_size: Images of a training batch.
        workers: Processes that read images.
        distributed: Whether each process takes its share of a batch; Lightning would shuffle what it shares out.
    """
    data = TextureDefects(
        root, image_size=SIDE, train_batch_size=batch_size, eval_batch_size=20, num_workers=workers, category="gravel"
    )
    defects = MODELS[name][2]
    data = data if defects is None else WithDefects(data, **defects)

    def train_dataloader() -> DataLoader:
        images = data.train_data
        sampler = DistributedSampler(images, shuffle=False) if distributed else None
        return DataLoader(
            images, batch_size=batch_size, sampler=sampler, collate_fn=images.collate_fn, num_workers=workers
        )

    data.train_dataloader = train_dataloader
    return data
