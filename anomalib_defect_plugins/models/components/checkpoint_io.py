"""Checkpoints that are complete or absent, and one-line errors for files that cannot be loaded."""

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from anomalib.engine.plugins import AnomalibCheckpointIO
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from packaging.version import InvalidVersion, Version

from anomalib_defect_plugins.core.checkpoint_keys import MODEL_KEY
from anomalib_defect_plugins.core.errors import (
    ConfigurationError,
    InvalidInputError,
    MissingDataError,
    UserError,
    find_user_error,
)
from anomalib_defect_plugins.core.files import write_bytes
from anomalib_defect_plugins.layers.encoder import weights_from_checkpoint

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Module
else:
    _Module = object

VERSION_KEY = "pytorch-lightning_version"

MIN_VERSION = Version("2.2")
"""Lowest Lightning version that a readable checkpoint can come from."""

TRAINING_STATE = ("callbacks", "loops", "optimizer_states", "lr_schedulers")
"""What a checkpoint needs besides weights to resume training."""


class _UnsuitableError(ValueError):
    """A file is not a checkpoint that can be loaded; the message is the reason."""


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
    """Check that the file exists, and is an undamaged file of torch, which does not verify the checksums."""
    if not path.is_file():
        msg = f"checkpoint {path} not found; pass a model.ckpt or last.ckpt of a training run"
        raise MissingDataError(msg)
    if not zipfile.is_zipfile(path):
        msg = "it is incomplete, or PyTorch has not saved it"
        raise _UnsuitableError(msg)
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
        names = archive.namelist()
    if broken is not None:
        msg = f"it is damaged, in {broken}"
        raise _UnsuitableError(msg)
    if not any(name.endswith("/data.pkl") for name in names):
        msg = "PyTorch has not saved it"
        raise _UnsuitableError(msg)


def _check_content(checkpoint: Any) -> None:
    """Check for the parts that Lightning requires."""
    parts = checkpoint if isinstance(checkpoint, Mapping) else {}
    if not all(isinstance(parts.get(name), Mapping) for name in ("state_dict", "hyper_parameters")):
        msg = "it contains no trained model"
        raise _UnsuitableError(msg)
    version = parts.get(VERSION_KEY)
    try:
        known = isinstance(version, str) and Version(version) >= MIN_VERSION
    except InvalidVersion:
        known = False
    if not known:
        msg = f"it was written by Lightning {version}; this package reads {MIN_VERSION} and later"
        raise _UnsuitableError(msg)


def _reason(error: Exception) -> str:
    text = str(error)
    refused = re.search(r"GLOBAL (\S+)", text)
    if refused:
        return f"it contains code, {refused[1]}, which is not executed"
    if isinstance(error, UnpicklingError):
        return "its content is invalid"
    line = " ".join((text.splitlines() or [""])[0].split())[:200]
    if isinstance(error, _UnsuitableError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def why(error: Exception) -> str:
    """Return the reason that a checkpoint cannot be loaded, without the name of the file and without advice."""
    if isinstance(error, UserError) and not isinstance(error.__cause__, Exception):
        return re.split(r"[:;] (?=pass|use)", str(error))[0]
    return _reason(error.__cause__ if isinstance(error.__cause__, Exception) else error)


class CheckpointErrors(_Module):
    """One-line errors for checkpoints that do not fit. Comes before ``AnomalibModule`` among the bases of a model.

    Attributes:
        kept_when_resuming: Arguments that a resumed training has to have in common with its checkpoint.
        former_arguments: Values of arguments that earlier versions did not have, for the checkpoints of these versions.
    """

    kept_when_resuming: ClassVar[Sequence[str]] = ()
    former_arguments: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    _origin: tuple[str | None, Mapping[str, Any]] = (None, {})
    """Class and arguments of the model that saved the checkpoint that is being loaded."""

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
        with loading(checkpoint_path), weights_from_checkpoint():
            try:
                named = {**cls._missing_arguments(checkpoint_path), **named}
                return super().load_from_checkpoint(checkpoint_path, *arguments, **named)
            except (LookupError, TypeError, AttributeError):
                _check_content(torch.load(checkpoint_path, "cpu", weights_only=True))  # has the reason if it fails
                raise

    @classmethod
    def _missing_arguments(cls, path: str | Path) -> dict[str, Any]:
        """Return the ``former_arguments`` that a checkpoint does not contain."""
        if not cls.former_arguments:
            return {}
        stored = torch.load(path, "cpu", weights_only=True, mmap=True)["hyper_parameters"]
        return {name: value for name, value in cls.former_arguments.items() if name not in stored}

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
            msg = f"the weights do not fit this {type(self).__name__} ({reason}): {self._advice()}"
            raise ConfigurationError(msg) from error

    def _advice(self) -> str:
        """Return how to load weights that do not fit."""
        name, stored = self._origin
        if name is not None and name != type(self).__name__:
            return f"they are of a {name}, so pass --model {name}, or another --ckpt_path"
        own: Mapping[str, Any] = self.hparams
        stored = {**self.former_arguments, **stored} if stored else stored
        differing = [key for key, value in stored.items() if key in own and _plain(value) != _plain(own[key])]
        changes = ", ".join(f"{key} {_plain(stored[key])} and not {_plain(own[key])}" for key in differing)
        trained = f"they were trained with {changes}; " if changes else ""
        return f"{trained}pass the --model arguments that they were trained with, or another --ckpt_path"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save as anomalib does, and the name of the class; paths become text, since checkpoints hold plain values."""
        super().on_save_checkpoint(checkpoint)
        arguments = checkpoint.get("hyper_parameters", {})
        arguments.update({name: str(value) for name, value in arguments.items() if isinstance(value, Path)})
        checkpoint[MODEL_KEY] = type(self).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore components as anomalib does.

        Raises:
            ConfigurationError: If training resumes from a checkpoint that lacks the training state, or with another
                value of one of ``kept_when_resuming``.
        """
        self._origin = (checkpoint.get(MODEL_KEY), checkpoint.get("hyper_parameters", {}))
        if self.resumes_training:
            self._check_resumable(checkpoint)
        super().on_load_checkpoint(checkpoint)

    @property
    def resumes_training(self) -> bool:
        """Whether a checkpoint that is being loaded is one that training resumes from."""
        trainer = getattr(self, "_trainer", None)
        return trainer is not None and trainer.state.fn == TrainerFn.FITTING

    def _check_resumable(self, checkpoint: Mapping[str, Any]) -> None:
        absent = [name for name in TRAINING_STATE if name not in checkpoint]
        if absent:
            msg = f"training cannot resume from this checkpoint, which has no {absent[0]}: pass a last.ckpt"
            raise ConfigurationError(msg)
        for name in self.kept_when_resuming:
            stored, current = checkpoint["hyper_parameters"][name], self.hparams[name]
            if stored != current:
                msg = (
                    f"training cannot resume with {name} {current}, because the checkpoint was trained with {stored}: "
                    f"pass --model.{name} {stored}, or train from the start"
                )
                raise ConfigurationError(msg)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def blame_checkpoint(path: str | Path, error: BaseException) -> None:
    """Attribute an error to the checkpoint that training resumed from, unless it is a user error already.

    Args:
        path: The checkpoint.
        error: The error; an ``InvalidInputError`` becomes its cause, which the command line prints.
    """
    if isinstance(error, Exception) and find_user_error(error) is None:
        msg = (
            f"cannot resume from checkpoint {path} ({_reason(error)}); pass a model.ckpt or last.ckpt of this model, "
            "trained with the same arguments and by this version of the package"
        )
        error.__cause__ = InvalidInputError(msg)
