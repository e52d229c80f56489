"""Synthesis with a trained Defect-GAN: loading it, and the masks of the defects that it generates."""

from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from anomalib.models.components import AnomalibModule
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.core.errors import LOAD_ERRORS, InvalidInputError, MissingDataError
from anomalib_defect_plugins.layers import at_size
from anomalib_defect_plugins.models.components.checkpoint_io import why

Model = TypeVar("Model", bound=AnomalibModule)

MIN_SHARE = 0.0005
"""Minimum size of a component of a mask, as a fraction of the image: 8 pixels at 128x128."""

MAX_SHARE = 0.5
"""Maximum size of a mask, as a fraction of the image; a larger one is a sign that the map has collapsed to 1."""

REACH = 9
"""Distance in pixels from its border at which a control map still has an effect."""

EIGHT_CONNECTED = np.ones((3, 3))
"""Structuring element of 8-connectivity: hairlines run diagonally."""


def load_trained(cls: type[Model], checkpoint: Path | str, device: torch.device | str = "cpu") -> Model:
    """Load a trained model for synthesis; torch's random state is unchanged.

    Args:
        cls: Class of the model.
        checkpoint: Checkpoint of its training, ``model.ckpt`` or ``last.ckpt``.
        device: Device for the model.

    Returns:
        The model in evaluation mode, its weights frozen.

    Raises:
        MissingDataError: If the file does not exist.
        InvalidInputError: If it is not a checkpoint of ``cls``.
    """
    path, name = Path(checkpoint), cls.__name__
    if not path.is_file():
        msg = f"{path} is missing; pass the model.ckpt that training {name} has saved"
        raise MissingDataError(msg)
    try:
        with torch.random.fork_rng(devices=[]):
            # _instantiator: a checkpoint must not choose the function that creates the model.
            model = cls.load_from_checkpoint(
                path, map_location=device, weights_only=True, _instantiator=None, evaluator=False, visualizer=False
            )
    except LOAD_ERRORS as error:
        msg = f"{path} is not a checkpoint of {name}, or is of another version ({why(error)}); "
        raise InvalidInputError(msg + f"pass the model.ckpt that training {name} has saved") from error
    return cast(Model, model.eval().requires_grad_(False))


def affected_region(control: Tensor, size: tuple[int, int]) -> Tensor:
    """Return where a control map can have an effect.

    Args:
        control: Control maps of any size, shape (B, K, h, w), in [0, 1]; (B, K, 1, 1) applies everywhere.
        size: Height and width of the generated images.

    Returns:
        Region, shape (B, 1, H, W), bool.
    """
    region = (at_size(control, size).amax(1, keepdim=True) > 0).float().expand(-1, -1, *size)
    return functional.max_pool2d(region, 2 * REACH + 1, 1, REACH) > 0


def blend_defects(images: Tensor, change: Tensor, maps: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Add synthetic defects to images at their own size.

    A defect fades in from nothing where m is half of the threshold to eq. 2 where it is the threshold.

    Args:
        images: Original images, shape (B, C, H, W), float in [0, 1], C 1 or 3.
        change: Change of the images at the size of the network, shape (B, 3, h, w).
        maps: Maps m, shape (B, 1, h, w), in [0, 1].
        threshold: Value of m that a defect reaches.

    Returns:
        Images, shape (B, C, H, W), not clamped; and masks, shape (B, 1, H, W), bool.
    """
    height, width = images.shape[-2:]
    low = threshold / 2
    # The change is resized to the size of the image rather than the result, so the image stays sharp.
    change = functional.interpolate(change, (height, width), mode="bilinear", antialias=True)
    maps = functional.interpolate(maps, (height, width), mode="bilinear", antialias=True)
    weight = ((maps - low) / (threshold - low)).clamp(0, 1)
    change = change if images.shape[1] == 3 else change.mean(1, keepdim=True)
    return images + weight * change, defect_masks(maps, low, core=threshold)


def defect_masks(
    maps: Tensor,
    threshold: float = 0.5,
    core: float | None = None,
    min_share: float = MIN_SHARE,
    max_share: float = MAX_SHARE,
) -> Tensor:
    """Return masks of synthetic defects: maps above a threshold, without specks, and empty if too large.

    Args:
        maps: Maps m of eq. 2, shape (B, 1, H, W), in [0, 1].
        threshold: Threshold of the maps.
        core: Value that a connected component must exceed somewhere to be kept; by default ``threshold``.
        min_share: Minimum size of a connected component, as a fraction of the image; at least one pixel.
        max_share: Maximum size of a mask, as a fraction of the image; larger masks are emptied.

    Returns:
        Masks, shape (B, 1, H, W), bool, on the device of the maps.
    """
    values = maps.detach().float().cpu().numpy()[:, 0]
    masks = np.stack([_mask(value, threshold, threshold if core is None else core, min_share) for value in values])
    masks[masks.mean((1, 2)) > max_share] = False
    return torch.from_numpy(masks)[:, None].to(maps.device)


def _mask(values: npt.NDArray[np.float32], threshold: float, core: float, min_share: float) -> npt.NDArray[np.bool_]:
    labels, count = ndimage.label(values > threshold, EIGHT_CONNECTED)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    peaks = np.asarray(ndimage.maximum(values, labels, np.arange(count + 1)))
    kept = (sizes >= min_share * values.size) & (peaks > core)
    kept[0] = False  # the background
    return cast(npt.NDArray[np.bool_], kept[labels])
