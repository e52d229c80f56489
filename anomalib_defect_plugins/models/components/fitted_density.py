"""Densities of normal images' features, which are fitted in closed form at the end of a training run."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.data.loading import check_one_size
from anomalib_defect_plugins.data.mask_resize import ignored_pixels, resize_mask
from anomalib_defect_plugins.layers.density import GaussianDensity
from anomalib_defect_plugins.layers.nearest_center import NearestCenter
from anomalib_defect_plugins.models.components.checks import datamodule_of
from anomalib_defect_plugins.models.components.normal_images import normal_images
from anomalib_defect_plugins.models.components.trainer_options import TrainerOptions


class DensityNetwork(nn.Module):
    """Network with densities of its features."""

    @abstractmethod
    def densities(self) -> Sequence[GaussianDensity | NearestCenter]:
        """Return the densities that are fitted to normal images; none if the network has none."""

    @abstractmethod
    def normal_features(self, image: Tensor) -> Sequence[Tensor]:
        """Compute the features (..., C) that each density is fitted to, of images (B, C, H, W), float in [0, 1]."""

    def new_moments(self) -> list[Any]:
        """Create what each density is fitted to, empty, on the device of the model if it supports double precision."""
        device = next(self.buffers(), torch.empty(0)).device
        device = torch.device("cpu") if device.type == "mps" else device
        return [density.collector(device) for density in self.densities()]

    @torch.no_grad()
    def observe(self, image: Tensor, moments: Sequence[Any], defect: Tensor | None = None) -> None:
        """Add the features of normal images to ``moments``; the model must be in evaluation mode.

        Args:
            image: Images, shape (B, 3, H, W), float in [0, 1].
            moments: As in :meth:`new_moments`.
            defect: Defects to leave out, shape (B, H, W), bool, for features that are maps, shape (B, h, w, C). Those
                next to a position that a defect touches are left out, too.
        """
        for sums, features in zip(moments, self.normal_features(image), strict=True):
            # Only features that are maps have positions to leave out.
            marked = None if features.ndim != 4 else defect
            sums.update(features, None if marked is None else background(marked, features.shape[1:3]))

    def fit(self, moments: Sequence[Any], gather: Callable[[Tensor], Tensor] = lambda value: value[None]) -> None:
        """Fit the densities to the observed features.

        Args:
            moments: As in :meth:`new_moments`.
            gather: Function that stacks the tensors of the processes of a distributed training run along a new axis.

        Raises:
            InvalidInputError: If there were fewer than two normal images, or if the features are not finite.
        """
        for density, sums in zip(self.densities(), moments, strict=True):
            sums.reduce(gather)
            density.fit(sums)


class FittedDensity(TrainerOptions):
    """Fits the densities of the network to the normal training images after the last step.

    Comes before ``DefectModel`` among the bases of a model.

    Attributes:
        density_step: Step after which the densities were fitted; -1 until then.
    """

    model: DensityNetwork
    density_step: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("density_step", torch.tensor(-1))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore components as anomalib does; version 0.1 of some models had no densities."""
        super().on_load_checkpoint(checkpoint)
        if not self.model.densities():
            checkpoint["state_dict"].setdefault("density_step", self.density_step)

    def setup(self, stage: str) -> None:
        """Check the data before training starts.

        Raises:
            ConfigurationError: If there is no data module to load the normal images of the density from.
        """
        if stage == "fit" and self.model.densities() and datamodule_of(self.trainer) is None:
            msg = f"{self.name} fits a density to images of a data module: "
            raise ConfigurationError(msg + "pass datamodule= (--data on the command line)")
        super().setup(stage)

    def on_train_batch_end(self, *_: object) -> None:
        """Fit the densities after the last step, because the checkpoints and the validation that follow need them."""
        trainer = self.trainer
        last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.should_stop or trainer.global_step == trainer.max_steps or (trainer.is_last_batch and last_epoch):
            self.fit_density()

    def on_validation_start(self) -> None:
        """Refit the densities before a validation in the middle of training."""
        if self.trainer.state.fn == "fit" and self.density_step != self.global_step:
            self.fit_density()

    @torch.no_grad()
    def fit_density(self) -> None:
        """Fit the densities to the normal training images, without training augmentations, in one pass over them.

        In distributed training each process reads a part of them, and all processes end with the same densities.

        Raises:
            InvalidInputError: If there are fewer than two of them, or if their features are not finite.
        """
        if self.model.densities():
            training = self.model.training
            self.model.eval()
            self._share_buffers()
            self.fit_to_normal()
            self.model.train(training)
        self.density_step.fill_(self.global_step)

    def fit_to_normal(self) -> None:
        """Fit the densities to the normal training images; the model is in evaluation mode."""
        moments = self.model.new_moments()
        for batch in self._batches(slice(None)):
            image = batch.image.as_subclass(Tensor)
            self.model.observe(image, moments, _abnormal_pixels(batch, image.shape[-2:]))
        self.model.fit(moments, self.gather)

    def normal_batches(self, part: slice = slice(None)) -> Iterator[Tensor]:
        """Yield the normal training images that this process reads, shape (B, C, H, W), as the network expects them.

        Args:
            part: Which of the normal training images to read, in their order.
        """
        for batch in self._batches(part):
            yield batch.image.as_subclass(Tensor)

    def _batches(self, part: slice) -> Iterator[Any]:
        for batch in normal_images(self.trainer, part):
            batch = self.transfer_batch_to_device(batch, self.device, 0)
            transform = getattr(self.pre_processor, "transform", None)  # anomalib accepts any module
            batch.image = transform(batch.image) if transform else batch.image
            check_one_size(batch.image, self.name)
            yield batch

    def gather(self, value: Tensor) -> Tensor:
        """Stack the tensors of all processes along a new first axis."""
        return cast(Tensor, self.all_gather(value)).reshape(-1, *value.shape)

    def _share_buffers(self) -> None:
        """Copy the buffers of the first process, whose batch statistics its checkpoint holds, to all processes."""
        buffers = list(self.model.buffers())
        broadcast = self.trainer.strategy.broadcast([buffer.cpu() for buffer in buffers])
        for buffer, first in zip(buffers, broadcast, strict=True):
            buffer.copy_(first)

    def on_test_start(self) -> None:
        """Check that the densities are fitted."""
        self._check_fitted()

    def on_predict_start(self) -> None:
        """Check that the densities are fitted."""
        self._check_fitted()

    def _check_fitted(self) -> None:
        if self.density_step < 0 and self.model.densities():
            msg = f"{self.name} has no density of normal images yet: "
            raise ConfigurationError(msg + "train it first, or pass --ckpt_path of a trained one")


def _abnormal_pixels(batch: Any, size: Sequence[int]) -> Tensor | None:
    """Return the pixels that are not normal, shape (B, H, W), bool; ``None`` if there are none."""
    ignored = ignored_pixels(batch, size)
    if batch.gt_mask is None or not batch.gt_label.any():
        return None if ignored is None else ignored[:, 0]
    defects = torch.stack([resize_mask(mask.as_subclass(Tensor), (size[0], size[1])) for mask in batch.gt_mask])
    return defects.bool() if ignored is None else defects.bool() | ignored[:, 0]


def background(defect: Tensor, size: Sequence[int]) -> Tensor:
    """Return the positions of a feature map, shape (B, h, w), bool, with no defect at or next to them.

    Args:
        defect: Defects, shape (B, H, W), bool.
        size: Height h and width w of the map.
    """
    touched = functional.adaptive_max_pool2d(defect.as_subclass(Tensor)[:, None].float(), tuple(size))
    return functional.max_pool2d(touched, 3, stride=1, padding=1)[:, 0] == 0
