"""Masks of the test images before the model's resizing, for metrics that are comparable between image sizes."""

import numpy as np
import numpy.typing as npt
from anomalib.data import AnomalibDataModule
from torchvision.transforms.v2 import CenterCrop, Pad, Transform

from anomalib_defect_plugins.data.mask_resize import flat_steps


class OriginalMasks:
    """Masks of the test images at the size of the images in the data set.

    The size is that of the image file, unless the data module itself resizes or crops, as ``KolektorSdd`` may. A model
    whose pre-processor crops or pads does not see the whole image: its masks have the size of the model.

    Args:
        datamodule: Data module that has been set up.
        transform: Transforms of the model's pre-processor.

    Attributes:
        resolution: ``original``, or ``model`` if the model crops or pads.
    """

    def __init__(self, datamodule: AnomalibDataModule, transform: Transform | None = None) -> None:
        self._dataset = datamodule.test_data
        self._rows = {path: row for row, path in enumerate(self._dataset.samples.image_path)}
        is_whole = not any(isinstance(step, CenterCrop | Pad) for step in flat_steps(transform))
        self.resolution = "original" if is_whole else "model"
        # Those of the data set end with the resizing of the model.
        self._augmentations = datamodule.test_augmentations if is_whole else self._dataset.augmentations
        self._transform = None if is_whole else transform

    def __call__(self, path: str) -> npt.NDArray[np.bool_] | None:
        """Load the mask of a test image.

        Args:
            path: The image file.

        Returns:
            Mask, shape (H, W); ``None`` if the data set has no masks.
        """
        before, self._dataset.augmentations = self._dataset.augmentations, self._augmentations
        try:
            item = self._dataset[self._rows[path]]
        finally:
            self._dataset.augmentations = before
        mask = item.gt_mask
        if mask is not None and self._transform is not None:
            _, mask = self._transform(item.image, mask)
        return None if mask is None else mask.numpy() > 0
