"""Synthesis with a trained Defect-GAN: loading its checkpoint, and the masks of the defects that it makes."""

import pickle
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError, UserError
from anomalib_defect_plugins.layers import at_size
from anomalib_defect_plugins.models.defectgan.lightning_model import DefectGan

SPECK = 0.0005
"""Least share of the image that a piece of a mask must have: 8 pixels at 128 a side."""

LARGEST = 0.5
"""Greatest share of the image that a mask may have; a greater one marks a map that has collapsed to 1."""

REACH = 9
"""Pixels past its border that a control map has an effect on: what lies further on looks as without any defect."""

EIGHT = np.ones((3, 3))
"""Pixels that touch by a corner belong together: hairlines run diagonally."""

BROKEN = (UserError, OSError, RuntimeError, LookupError, TypeError, ValueError, EOFError, pickle.PickleError)
"""What reading a file raises that is no checkpoint, or one of another model."""


def load(checkpoint: Path | str, device: torch.device | str = "cpu") -> DefectGan:
    """Load a trained Defect-GAN for synthesis.

    Args:
        checkpoint: What its training has left, ``model.ckpt`` or ``last.ckpt``.
        device: Where it is to work.

    Returns:
        The model, in evaluation mode. The state of torch's random numbers is left as it was.

    Raises:
        MissingDataError: There is no such file.
        InvalidInputError: It is no checkpoint, or one of another model.
    """
    path = Path(checkpoint)
    if not path.is_file():
        msg = f"{path} is missing; give the model.ckpt that a training of DefectGan has left"
        raise MissingDataError(msg)
    try:
        with torch.random.fork_rng(devices=[]):
            model = DefectGan.load_from_checkpoint(path, map_location=device, evaluator=False, visualizer=False)
    except BROKEN as error:
        reason = str(error).strip().partition("\n")[0].rstrip(":") or type(error).__name__
        msg = f"{path} is no checkpoint of DefectGan, or of another version ({reason}); give the model.ckpt that a "
        raise InvalidInputError(msg + "training of DefectGan has left") from error
    return model.eval().requires_grad_(False)


def reached(control: Tensor, size: tuple[int, int]) -> Tensor:
    """Say where a control map can have made a defect.

    Args:
        control: (B, K, h, w) in [0, 1], of any size; (B, K, 1, 1) holds everywhere.
        size: Height and width of the images that the model makes.

    Returns:
        (B, 1, H, W), bool.
    """
    region = (at_size(control, size).amax(1, keepdim=True) > 0).float().expand(-1, -1, *size)
    return functional.max_pool2d(region, 2 * REACH + 1, 1, REACH) > 0


def defect_masks(
    maps: Tensor,
    threshold: float = 0.5,
    core: float | None = None,
    min_share: float = SPECK,
    max_share: float = LARGEST,
) -> Tensor:
    """Give the masks of synthetic defects: their maps above a threshold, without specks, and empty when too large.

    Args:
        maps: (B, 1, H, W), in [0, 1], the m of eq. 2.
        threshold: A pixel is of a defect where the map is above it.
        core: A piece stays only if the map is above this somewhere in it; by default ``threshold``.
        min_share: Share of the image that a piece must have to stay, one pixel at least.
        max_share: A mask that covers more of the image is empty: the map has collapsed to 1.

    Returns:
        (B, 1, H, W), bool, on the device of the maps.
    """
    values = maps.detach().float().cpu().numpy()[:, 0]
    masks = np.stack([_pieces(value, threshold, threshold if core is None else core, min_share) for value in values])
    masks[masks.mean((1, 2)) > max_share] = False
    return torch.from_numpy(masks)[:, None].to(maps.device)


def _pieces(values: np.ndarray, threshold: float, core: float, min_share: float) -> np.ndarray:
    labels, count = ndimage.label(values > threshold, EIGHT)
    numbers = np.arange(count + 1)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    peaks = ndimage.maximum(values, labels, numbers)
    stays = (sizes >= min_share * values.size) & (np.asarray(peaks) > core)
    stays[0] = False
    return stays[labels]
