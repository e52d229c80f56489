"""Checkpoints that are there as a whole or not at all, and one line for a file that cannot be loaded."""

import contextlib
import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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

PARTIAL = ".part"
"""End of the name of a checkpoint that is being written, or of what a killed process has left of one."""

VERSION = "pytorch-lightning_version"

OLDEST = Version("2.2")
"""Oldest Lightning that this package runs with, so that no checkpoint of its models is older."""

TRAINING_STATE = ("callbacks", "loops", "optimizer_states", "lr_schedulers")
"""What a checkpoint needs besides weights for training to go on."""


class UnsavedCheckpointError(UserError, OSError):
    """A checkpoint could not be written."""


class WholeCheckpointIO(AnomalibCheckpointIO):
    """Writes checkpoints atomically, and loads nothing but whole ones, of plain values.

    Lightning's own writes into the temporary folder and moves, which is a copy where that is another file system: a
    kill or a full disk leaves half of it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; what was at ``path`` stays until it is there as a whole.

        Raises:
            UnsavedCheckpointError: It cannot be written.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            _replace(Path(path), content.getbuffer())
        except OSError as error:
            reason = error.strerror or type(error).__name__
            msg = (
                f"cannot write checkpoint {path} ({reason}); what was saved before is whole: make room, or allow "
                "writing, and go on with --ckpt_path and the last.ckpt that is there"
            )
            raise UnsavedCheckpointError(msg) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint, by default without running anything that a file may hold besides values.

        Raises:
            MissingDataError: There is no such file.
            InvalidInputError: It is damaged, is no checkpoint, or holds more than values.
        """
        with loading(path):
            checkpoint = super().load_checkpoint(path, map_location, weights_only is not False)
            _check_content(checkpoint)
        return checkpoint


def _replace(path: Path, content: memoryview) -> None:
    partial = path.with_name(path.name + PARTIAL)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_atomically(trainer: Trainer) -> None:
    """Have a trainer write and load its checkpoints by :class:`WholeCheckpointIO`, unless the user has chosen how."""
    present = trainer.strategy.checkpoint_io
    if type(present) in {TorchCheckpointIO, AnomalibCheckpointIO}:
        trainer.strategy.checkpoint_io = WholeCheckpointIO(getattr(present, "extra_safe_globals", ()))


@contextlib.contextmanager
def loading(path: str | Path) -> Iterator[None]:
    """Look at a checkpoint's file, and name it in whatever goes wrong while it is loaded.

    Raises:
        MissingDataError: There is no such file.
        InvalidInputError: It is damaged, is no checkpoint, or holds more than values.
    """
    try:
        if "://" not in str(path):
            _check_file(Path(path))
        yield
    except UserError:
        raise
    except Exception as error:  # decoders raise errors of many kinds on a broken file
        msg = f"cannot load checkpoint {path} ({_reason(error)}); give a model.ckpt or last.ckpt of a training"
        raise InvalidInputError(msg) from error


def _check_file(path: Path) -> None:
    """Refuse a file that is gone or damaged; torch itself does not look at the checksums."""
    if not path.is_file():
        msg = f"checkpoint {path} does not exist; give a model.ckpt or last.ckpt that a training has left"
        raise MissingDataError(msg)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            msg = f"it is damaged, in {broken}"
            raise ValueError(msg)


def _check_content(checkpoint: Any) -> None:
    """Refuse what Lightning would stumble over."""
    parts = checkpoint if isinstance(checkpoint, Mapping) else {}
    if not all(isinstance(parts.get(name), Mapping) for name in ("state_dict", "hyper_parameters")):
        msg = "it holds no trained model"
        raise ValueError(msg)
    version = parts.get(VERSION)
    try:
        known = isinstance(version, str) and Version(version) >= OLDEST
    except InvalidVersion:
        known = False
    if not known:
        msg = f"it was written by Lightning {version}; this package reads {OLDEST} and later"
        raise ValueError(msg)


def _reason(error: Exception) -> str:
    text = str(error)
    refused = re.search(r"GLOBAL (\S+)", text)
    if refused:
        return f"it holds code, {refused[1]}, which is not run"
    return " ".join((text.splitlines() or [""])[0].split())[:200] or type(error).__name__


class Checkpointed:
    """Comes before ``AnomalibModule`` among the bases of a model: a checkpoint that does not fit is one line."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *arguments: Any, **named: Any) -> Any:
        """Load a model, as in anomalib.

        Raises:
            MissingDataError: There is no such file.
            InvalidInputError: It is damaged, is no checkpoint, or holds more than values.
            ConfigurationError: It is of another model.
        """
        if not isinstance(checkpoint_path, str | Path):
            return super().load_from_checkpoint(checkpoint_path, *arguments, **named)
        with loading(checkpoint_path):
            return super().load_from_checkpoint(checkpoint_path, *arguments, **named)

    def load_state_dict(self, state_dict: Mapping[str, Any], *arguments: Any, **named: Any) -> Any:
        """Load weights, as in torch.

        Raises:
            ConfigurationError: They are of another model.
        """
        try:
            return super().load_state_dict(state_dict, *arguments, **named)
        except (AttributeError, RuntimeError, TypeError) as error:
            details = [line.strip() for line in str(error).splitlines()]
            reason = " ".join(details[:2])[:200] or type(error).__name__
            msg = (
                f"the weights are not those of this {type(self).__name__} ({reason}): give the --model arguments that "
                "it was trained with, or another --ckpt_path"
            )
            raise ConfigurationError(msg) from error

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load as anomalib does.

        Raises:
            ConfigurationError: Training is to go on, for which the checkpoint has not what it needs.
        """
        trainer = getattr(self, "_trainer", None)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            absent = [name for name in TRAINING_STATE if name not in checkpoint]
            if absent:
                msg = f"training cannot go on from this checkpoint, which has no {absent[0]}: give a last.ckpt"
                raise ConfigurationError(msg)
        super().on_load_checkpoint(checkpoint)


def blame_checkpoint(path: str | Path, error: BaseException) -> None:
    """Say in one line that a checkpoint was to blame, unless a line says what else was.

    Args:
        path: The checkpoint that was put in place.
        error: What came of it; its cause becomes an ``InvalidInputError``, which the command line shows.
    """
    if isinstance(error, Exception) and find_user_error(error) is None:
        msg = (
            f"cannot go on from checkpoint {path} ({type(error).__name__}: {_reason(error)}); give a model.ckpt or "
            "last.ckpt that this model has left with the same arguments"
        )
        error.__cause__ = InvalidInputError(msg)
