"""Checks before and during training: data, supervision, validation images, finite losses."""

import logging
from typing import Protocol, runtime_checkable

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataModule
from anomalib.data.errors import MisMatchError
from anomalib.data.utils import LabelName, ValSplitMode
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, UserError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data.dataset import check_samples
from anomalib_defect_plugins.data.loading import check_loader_arguments
from anomalib_defect_plugins.data.training_set import DefectTraining
from anomalib_defect_plugins.models.components.trainer_options import set_options

logger = logging.getLogger(__name__)


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss is infinite or NaN."""


def check_finite(losses: dict[str, Tensor], step: str) -> None:
    """Check that all losses are finite.

    Args:
        losses: Scalars by name.
        step: Position in training, for the message.

    Raises:
        NonFiniteLossError: If one is not; names the loss, its value and the step.
    """
    for name, value in losses.items():
        if not torch.isfinite(value):
            msg = (
                f"{name} is {value.item()} at {step}: check the training images for extreme values, "
                "or lower the learning rates, then resume from the last checkpoint"
            )
            raise NonFiniteLossError(msg)


def set_up_data(trainer: Trainer) -> None:
    """Set up the trainer's data module, turning its errors into one line.

    For a model's ``prepare_data``: right after it, Lightning sets up the data module, where a model cannot intervene.

    Args:
        trainer: Trainer before it sets up the data module.

    Raises:
        InvalidInputError: If a batch size or number of workers is invalid, or if the data module raises an error;
            repeats its reason.
        ConfigurationError: If the training set lacks what the model needs; see :func:`check_supervision`.
    """
    datamodule = datamodule_of(trainer)
    if datamodule is None:
        return
    check_loader_arguments(datamodule)
    try:
        datamodule.setup(trainer.state.fn)
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, MisMatchError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{type(datamodule).__name__} cannot be set up ({reason}); check the folders given to --data"
        raise InvalidInputError(msg) from error
    if trainer.state.fn == TrainerFn.FITTING:
        check_supervision(trainer.lightning_module, datamodule)


def datamodule_of(trainer: Trainer) -> AnomalibDataModule | None:
    """Return the trainer's data module; ``None`` if it was passed data loaders instead."""
    return getattr(trainer, "datamodule", None)


def check_supervision(model: LightningModule, datamodule: AnomalibDataModule) -> None:
    """Check that the training set has the labels that the model needs.

    Args:
        model: Model; its ``supervision`` is what it needs. Without that attribute nothing is checked.
        datamodule: Data module of the training run, set up.

    Raises:
        ConfigurationError: If it lacks defects or masks that the model needs; says how to add them.
    """
    needs = getattr(model, "supervision", None)
    if needs not in {Supervision.IMAGE_LABELS, Supervision.PIXEL_MASKS}:
        return
    table = datamodule.train_data.samples
    wrapper = datamodule if isinstance(datamodule, DefectTraining) else None
    synthetic = wrapper is not None and wrapper.synthetic is not None
    has_defects = (table.label_index == LabelName.ABNORMAL).any() or synthetic
    has_masks = has_defects and table.attrs.get("task") == TaskType.SEGMENTATION
    if has_masks or (has_defects and needs is Supervision.IMAGE_LABELS):
        return
    what = "pixel masks of defective images" if needs is Supervision.PIXEL_MASKS else "defective images"
    msg = f"{model.name} needs {what} in the training set; {datamodule.name} has none. "
    if has_defects:
        msg += "Pass --data.masks true, or take data with masks" if wrapper else "Take data with masks"
    else:
        wrap = "Pass " if wrapper else f"Wrap it: --data WithDefects --data.base {type(datamodule).__name__} "
        real = "--data.real 20" if wrapper is None or wrapper.train_on_real else "--data.train_on_real true"
        msg += f"{wrap}{real}, or add synthetic ones: --data.synthetic procedural"
    raise ConfigurationError(msg)


def check_evaluation_data(datamodule: AnomalibDataModule) -> None:
    """Check the validation and test files before time is spent on training.

    Args:
        datamodule: Data module of the training run, set up.

    Raises:
        MissingDataError: If a file is missing.
        InvalidInputError: If an image or mask is corrupt, or the size of a mask differs from its image's.
    """
    subsets = [getattr(datamodule, f"{name}_data", None) for name in ("val", "test")]
    if datamodule.val_split_mode == ValSplitMode.SAME_AS_TEST:
        subsets = subsets[1:]
    check_samples(*(subset for subset in subsets if subset is not None and len(subset)))


@runtime_checkable
class ThresholdProvider(Protocol):
    """A post-processor that may have thresholds without validation images.

    Attributes:
        needs_validation: Whether it has none without validation images.
    """

    needs_validation: bool


def allow_no_validation(
    trainer: Trainer, post_processor: nn.Module | None, threshold_option: str | None = None
) -> None:
    """Train without validation if there are no images for it, as with ``val_split_mode=none``, or none are to be used.

    anomalib 2.7 requests validation images from such a data module all the same, which fails after training.

    Args:
        trainer: Trainer before training; its data module is set up.
        post_processor: Post-processor of the model; a warning is logged if it needs validation images.
        threshold_option: Command-line option that yields thresholds without them, if the model has one.
    """
    datamodule = datamodule_of(trainer)
    has_images = datamodule is not None and bool(getattr(datamodule, "val_data", None))
    if has_images and trainer.limit_val_batches:
        return
    needs_validation = not isinstance(post_processor, ThresholdProvider) or post_processor.needs_validation
    if post_processor is not None and needs_validation:
        advice = "leave limit_val_batches out" if has_images else "pass a data module that has some"
        advice += f", or {threshold_option}" if threshold_option else ""
        name = "the data" if datamodule is None else datamodule.name
        cause = "is not validated (limit_val_batches 0)" if has_images else "has no validation images"
        logger.warning("%s %s, so there will be no thresholds; %s", name, cause, advice)
    # Lightning's checkpoint would wait for a validation run unless it is due after every epoch.
    set_options(trainer, limit_val_batches=0, check_val_every_n_epoch=1, val_check_interval=1.0)
