"""Checkpoints that are complete or absent, and one-line errors for files that cannot be loaded."""

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anomalib.engine.plugins import AnomalibCheckpointIO
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from packaging.version import InvalidVersion, Version

from anomalib_defect_plugins.core.errors import (
    ConfigurationError,
    InvalidInputError,
    MissingDataError,
    UserError,
    find_user_error,
)
from anomalib_defect_plugins.core.files import write_bytes

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Module
else:
    _Module = object

VERSION_KEY = "pytorch-lightning_version"

MIN_VERSION = Version("2.2")
"""Lowest Lightning version that a readable checkpoint can come from."""

TRAINING_STATE = ("callbacks", "loops", "optimizer_states", "lr_schedulers")
"""What a checkpoint needs besides weights to resume training."""


class UnsavedCheckpointError(UserError, OSError):
    """A checkpoint could not be written."""


class AtomicCheckpointIO(AnomalibCheckpointIO):
    """Writes checkpoints atomically, and loads only complete ones that hold plain values.

    Lightning writes to the temporary folder and moves the file, which is a copy if that is another file system: a kill
    or a full disk leaves a truncated checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; a previous file at ``path`` stays until the new one is complete.

        Raises:
            UnsavedCheckpointError: If it cannot be written.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            write_bytes(Path(path), content.getbuffer(), sync=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            msg = (
                f"cannot write checkpoint {path} ({reason}); earlier checkpoints are complete: free some space, or "
                "allow writing, and resume with --ckpt_path and the last.ckpt in that folder"
            )
            raise UnsavedCheckpointError(msg) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint, by default without executing code that a file may contain.

        Raises:
            MissingDataError: If the file does not exist.
            InvalidInputError: If it is damaged, is no checkpoint, or contains code.
        """
        with loading(path):
            checkpoint: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only is not False)
            _check_content(checkpoint)
        return checkpoint


def use_atomic_checkpoints(trainer: Trainer) -> None:
    """Make a trainer use :class:`AtomicCheckpointIO`, unless the user has configured a checkpoint plugin."""
    present = trainer.strategy.checkpoint_io
    if type(present) in {TorchCheckpointIO, AnomalibCheckpointIO}:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO(getattr(present, "extra_safe_globals", ()))


@contextlib.contextmanager
def loading(path: str | Path) -> Iterator[None]:
    """Check a checkpoint file, and name it in every error raised while it is loaded.

    Raises:
        MissingDataError: If the file does not exist.
        InvalidInputError: If it is damaged, is no checkpoint, or contains code.
    """
    try:
        if "://" not in str(path):
            _check_file(Path(path))
        yield
    except UserError:
        raise
    except Exception as error:  # decoders raise errors of many kinds on a broken file
        msg = f"cannot load checkpoint {path} ({_reason(error)}); pass a model.ckpt or last.ckpt of a training run"
        raise InvalidInputError(msg) from error


def _check_file(path: Path) -> None:
    """Check that the file exists and is undamaged; torch does not verify the checksums."""
    if not path.is_file():
        msg = f"checkpoint {path} not found; pass a model.ckpt or last.ckpt of a training run"
        raise MissingDataError(msg)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            msg = f"it is damaged, in {broken}"
            raise ValueError(msg)


def _check_content(checkpoint: Any) -> None:
    """Check for the parts that Lightning requires."""
    parts = checkpoint if isinstance(checkpoint, Mapping) else {}
    if not all(isinstance(parts.get(name), Mapping) for name in ("state_dict", "hyper_parameters")):
        msg = "it contains no trained model"
        raise ValueError(msg)
    version = parts.get(VERSION_KEY)
    try:
        known = isinstance(version, str) and Version(version) >= MIN_VERSION
    except InvalidVersion:
        known = False
    if not known:
        msg = f"it was written by Lightning {version}; this package reads {MIN_VERSION} and later"
        raise ValueError(msg)


def _reason(error: Exception) -> str:
    text = str(error)
    refused = re.search(r"GLOBAL (\S+)", text)
    if refused:
        return f"it contains code, {refused[1]}, which is not executed"
    return " ".join((text.splitlines() or [""])[0].split())[:200] or type(error).__name__


class CheckpointErrors(_Module):
    """One-line errors for checkpoints that do not fit. Comes before ``AnomalibModule`` among the bases of a model."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *arguments: Any, **named: Any) -> Any:
        """Load a model as anomalib does.

        Raises:
            MissingDataError: If the file does not exist.
            InvalidInputError: If it is damaged, is no checkpoint, or contains code.
            ConfigurationError: If it belongs to another model.
        """
        if not isinstance(checkpoint_path, str | Path):
            return super().load_from_checkpoint(checkpoint_path, *arguments, **named)
        with loading(checkpoint_path):
            return super().load_from_checkpoint(checkpoint_path, *arguments, **named)

    def load_state_dict(self, state_dict: Mapping[str, Any], *arguments: Any, **named: Any) -> Any:
        """Load weights as torch does.

        Raises:
            ConfigurationError: If they belong to another model.
        """
        try:
            return super().load_state_dict(state_dict, *arguments, **named)
        except (AttributeError, RuntimeError, TypeError) as error:
            details = [line.strip() for line in str(error).splitlines()]
            reason = " ".join(details[:2])[:200] or type(error).__name__
            msg = (
                f"the weights do not fit this {type(self).__name__} ({reason}): pass the --model arguments that it was "
                "trained with, or another --ckpt_path"
            )
            raise ConfigurationError(msg) from error

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore components as anomalib does.

        Raises:
            ConfigurationError: If training resumes from a checkpoint that lacks the training state.
        """
        trainer = getattr(self, "_trainer", None)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            absent = [name for name in TRAINING_STATE if name not in checkpoint]
            if absent:
                msg = f"training cannot resume from this checkpoint, which has no {absent[0]}: pass a last.ckpt"
                raise ConfigurationError(msg)
        super().on_load_checkpoint(checkpoint)


def blame_checkpoint(path: str | Path, error: BaseException) -> None:
    """Attribute an error to the checkpoint that training resumed from, unless it is a user error already.

    Args:
        path: The checkpoint.
        error: The error; an ``InvalidInputError`` becomes its cause, which the command line prints.
    """
    if isinstance(error, Exception) and find_user_error(error) is None:
        msg = (
            f"cannot resume from checkpoint {path} ({type(error).__name__}: {_reason(error)}); pass a model.ckpt or "
            "last.ckpt of this model, trained with the same arguments"
        )
        error.__cause__ = InvalidInputError(msg)
