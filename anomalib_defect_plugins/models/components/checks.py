"""What our models share while they train: finite losses and a point to resume from."""

import logging

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

logger = logging.getLogger(__name__)


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss became infinite or not a number."""


def check_finite(losses: dict[str, Tensor], step: str) -> None:
    """Stop training when a loss is not finite.

    Args:
        losses: Scalars by name.
        step: Where training is, for the message.

    Raises:
        NonFiniteLossError: Names the first such loss, its value and the step.
    """
    for name, value in losses.items():
        if not torch.isfinite(value):
            msg = (
                f"{name} is {value.item()} at {step}: check the training images for extreme values, "
                "or lower the learning rates, then resume from the last checkpoint"
            )
            raise NonFiniteLossError(msg)


def set_up_data(trainer: Trainer) -> None:
    """Set the trainer's data module up, such that data which cannot be used is told of in one line.

    For a model's ``prepare_data``: Lightning sets the data module up right after it, where no model can step in.

    Args:
        trainer: The trainer, before it sets the data module up.

    Raises:
        InvalidInputError: Repeats what the data module says.
        ConfigurationError: The training set lacks what the model needs, see :func:`check_supervision`.
    """
    datamodule = datamodule_of(trainer)
    if datamodule is None:
        return
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
    """The data module that the trainer was given, if it was given one and not loaders."""
    return getattr(trainer, "datamodule", None)


def check_supervision(model: LightningModule, datamodule: AnomalibDataModule) -> None:
    """Stop when the training set lacks what the model needs, and say how to get it.

    Args:
        model: What it needs is its attribute ``supervision``; without one, nothing is checked.
        datamodule: The data module that training is given, set up.

    Raises:
        ConfigurationError: It has no defects, or no masks of them, and the model needs them.
    """
    needs = getattr(model, "supervision", None)
    if needs not in {Supervision.IMAGE_LABELS, Supervision.PIXEL_MASKS}:
        return
    table = datamodule.train_data.samples
    wrapped = hasattr(datamodule, "synthetic")
    has_defects = (table.label_index == LabelName.ABNORMAL).any() or getattr(datamodule, "synthetic", None) is not None
    has_masks = has_defects and table.attrs.get("task") == TaskType.SEGMENTATION
    if has_masks or (has_defects and needs is Supervision.IMAGE_LABELS):
        return
    what = "pixel masks of defective images" if needs is Supervision.PIXEL_MASKS else "defective images"
    msg = f"{model.name} needs {what} in the training set; {datamodule.name} has none. "
    if has_defects:
        msg += "Pass --data.masks true, or take data with masks" if wrapped else "Take data with masks"
    else:
        wrap = "Pass " if wrapped else f"Wrap it: --data WithDefects --data.base {type(datamodule).__name__} "
        real = "--data.real 20" if getattr(datamodule, "train_on_real", True) else "--data.train_on_real true"
        msg += f"{wrap}{real}, or add synthetic ones: --data.synthetic procedural"
    raise ConfigurationError(msg)


def check_evaluation_data(datamodule: AnomalibDataModule) -> None:
    """Look at the validation and test files before hours are spent on training.

    Args:
        datamodule: The data module that training is given, set up.

    Raises:
        MissingDataError: A file is gone.
        InvalidInputError: An image or a mask is broken, or a mask is not as large as its image.
    """
    subsets = [getattr(datamodule, f"{name}_data", None) for name in ("val", "test")]
    if datamodule.val_split_mode == ValSplitMode.SAME_AS_TEST:
        subsets = subsets[1:]
    for subset in subsets:
        if subset is not None and len(subset):
            check_samples(subset)


def allow_no_validation(trainer: Trainer, post_processor: nn.Module | None) -> None:
    """Train without validation where the data module has no images for it, as with ``val_split_mode=none``.

    anomalib 2.7 asks such a data module for validation images all the same, which fails when training is done.

    Args:
        trainer: The trainer, before training; its data module is set up.
        post_processor: The model's; if it needs validation images, the user is told what is missing.
    """
    datamodule = datamodule_of(trainer)
    if not getattr(datamodule, "val_data", None):
        if post_processor is not None and getattr(post_processor, "needs_validation", True):
            logger.warning(
                "%s has no validation images, so there will be no thresholds, unless the model "
                "can do without them (HtpGan: --model.threshold reference, OneStage: --model.sigma)",
                getattr(datamodule, "name", "the data"),
            )
        trainer.limit_val_batches = 0
        trainer.check_val_every_n_epoch = 1  # else Lightning's checkpoint would wait for a validation
