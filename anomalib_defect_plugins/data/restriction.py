"""Connects regions of interest and tiles with a model: its pre-processing, its network and its checkpoints."""

from collections.abc import Callable
from typing import Any

import torch
from anomalib.models.components import AnomalibModule
from torch import Tensor, nn

from anomalib_defect_plugins.layers.region import Region, fill_outside, resize_region
from anomalib_defect_plugins.layers.restricted_forward import RestrictedForward, Tiling, region_of

CHECKPOINT_KEY = "anomalib_defect_plugins_region"
"""Key of the region of interest in checkpoints."""

STAGES = ("validation", "test", "predict")


def restricted_forward(model: Any) -> RestrictedForward:
    """Return the object that takes the place of the network's ``forward``; created on the first call."""
    forward = model.model.forward
    if not isinstance(forward, RestrictedForward):
        forward = RestrictedForward(model.model)
        model.model.forward = forward
    return forward


def set_region(model: Any, region: Region | None) -> None:
    """Make a model ignore what is outside a region: in evaluation, prediction and exported graphs.

    Args:
        model: Model.
        region: The region; ``None`` removes it.
    """
    restricted_forward(model).region = region
    entrance = model.pre_processor if isinstance(model.pre_processor, nn.Module) else model.model
    _remove(entrance, "_region_hook")
    vars(entrance).pop("on_predict_batch_start", None)
    if region is None or region.fixed is None:
        return
    # ``forward`` of a pre-processor is called in inference and exported graphs only.
    entrance._region_hook = entrance.register_forward_pre_hook(_FillInput(region))
    if entrance is model.pre_processor:
        entrance.on_predict_batch_start = _FillBatch(entrance, region)


def _remove(module: nn.Module, name: str) -> None:
    hook = vars(module).pop(name, None)
    if hook is not None:
        hook.remove()


class _FillInput:
    """Fills the input of a pre-processor or network outside the region."""

    def __init__(self, region: Region) -> None:
        self.region = region

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        del module
        return self.region.fill(inputs[0]), *inputs[1:]


class _FillBatch:
    """Fills the images of a batch outside the region before the pre-processor transforms them."""

    def __init__(self, pre_processor: Any, region: Region) -> None:
        self.pre_processor = pre_processor
        self.region = region

    def __call__(self, trainer: Any, pl_module: Any, batch: Any, *args: Any) -> None:
        images = batch.image
        filled = [self.region.fill(image[None])[0] for image in images]
        batch.image = filled if isinstance(images, list) else torch.stack(filled)
        type(self.pre_processor).on_predict_batch_start(self.pre_processor, trainer, pl_module, batch, *args)


def fill_training_batch(batch: Any, region: Tensor) -> None:
    """Fill a training batch, whose synthetic defects may have been drawn outside the region, at the size of the model.

    Args:
        batch: Batch. Its images and, if it has masks, masks and labels are changed in place.
        region: The region of all images, shape (H, W), bool.
    """
    if isinstance(batch.image, list):
        return
    inside = resize_region(region.to(batch.image.device), *batch.image.shape[-2:])
    batch.image = fill_outside(batch.image, inside)
    if batch.gt_mask is not None:
        batch.gt_mask = batch.gt_mask & inside
        batch.gt_label = batch.gt_mask.flatten(1).any(1).to(batch.gt_label.dtype)


def start_tiling(model: Any, size: int, overlap: int, batch: int, max_map_pixels: int) -> None:
    """Make a model evaluate whole images tile by tile, until :func:`stop_tiling`.

    The pre-processor, which would resize whole images, is applied to the tiles instead.
    """
    stop_tiling(model)
    forward = restricted_forward(model)
    pre_processor = model.pre_processor
    forward.tiling = Tiling(size, overlap, batch, _Prepare(model), max_map_pixels, is_active=pre_processor is None)
    for stage in STAGES if pre_processor is not None else ():
        setattr(pre_processor, f"on_{stage}_batch_start", _SetActive(forward.tiling, True))
        setattr(pre_processor, f"on_{stage}_batch_end", _SetActive(forward.tiling, False))


def stop_tiling(model: Any) -> None:
    """Undo :func:`start_tiling`."""
    restricted_forward(model).tiling = None
    for stage in STAGES:
        for name in (f"on_{stage}_batch_start", f"on_{stage}_batch_end"):
            if isinstance(vars(model.pre_processor or model.model).get(name), _SetActive):
                delattr(model.pre_processor, name)


class _Prepare:
    """Pre-processes tiles as the model does; its transform may be replaced before the first batch."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, tiles: Any) -> Any:
        transform = getattr(self.model.pre_processor, "transform", None)
        return transform(tiles) if transform else tiles


class _SetActive:
    """Callback that marks the beginning or the end of a batch of whole images."""

    def __init__(self, tiling: Tiling, value: bool) -> None:
        self.tiling = tiling
        self.value = value

    def __call__(self, *_: object, **__: object) -> None:
        self.tiling.is_active = self.value


def save_region(model: Any, checkpoint: dict[str, Any]) -> None:
    """Add the region of all images to a checkpoint; tiles have none, as it would apply to each of them."""
    region = region_of(model)
    if region is not None and region.fixed is not None and restricted_forward(model).tiling is None:
        checkpoint[CHECKPOINT_KEY] = {"mask": region.fixed.cpu(), "has_peak_scores": region.has_peak_scores}


def load_region(model: Any, checkpoint: dict[str, Any]) -> None:
    """Restore the region of a checkpoint."""
    content = checkpoint.get(CHECKPOINT_KEY)
    if content is not None:
        set_region(model, Region(content["mask"].bool(), content["has_peak_scores"]))


def keep_regions_in_checkpoints() -> None:
    """Make all models, also those of anomalib, keep their region of interest in checkpoints.

    ``anomalib export`` creates a model from its class and a checkpoint, and there is no other way to have it there.
    """
    for name, function in (("on_save_checkpoint", save_region), ("on_load_checkpoint", load_region)):
        before = getattr(AnomalibModule, name)
        if not hasattr(before, "region_function"):
            setattr(AnomalibModule, name, _followed_by(before, function))


def _followed_by(method: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    def both(self: Any, checkpoint: dict[str, Any]) -> None:
        method(self, checkpoint)
        function(self, checkpoint)

    both.__doc__, both.__name__ = method.__doc__, method.__name__
    both.region_function = function  # type: ignore[attr-defined]
    return both
