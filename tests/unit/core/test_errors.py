"""Errors that users can fix become one line."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from anomalib.engine import Engine
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset

from anomalib_defect_plugins.core import errors
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError


class Thing:
    """A class that a command line can instantiate."""

    def __init__(self, width: int = 1) -> None:
        if width < 1:
            msg = f"width is {width}; it must be 1 or more"
            raise InvalidInputError(msg)


class Box:
    """A class with an argument that is an instance of another class."""

    def __init__(self, thing: Thing | None = None) -> None:
        self.thing = thing


class CorruptDataset(Dataset):
    """A data set whose only image is corrupt."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        try:
            return {}[index]
        except KeyError as error:
            msg = "image a.png is corrupt: delete it"
            raise MissingDataError(msg) from error


def raised_by(function, *arguments: object) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*arguments)
    return caught.value


def test_a_user_error_becomes_one_line() -> None:
    assert errors.error_line(InvalidInputError("a is 1;\n  it must be 2")) == "error: a is 1; it must be 2"


def test_any_other_error_has_no_line() -> None:
    error = ValueError("a")
    error.__cause__ = KeyError("b")
    assert errors.error_line(error) is None


@pytest.mark.parametrize(
    "message",
    [
        "DataLoader worker (pid 123) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 123, 45) exited unexpectedly",
        "DataLoader worker (pid 7) exited unexpectedly with exit code 1. Details are lost due to multiprocessing.",
    ],
)
def test_a_killed_data_loader_worker_is_one_line(message: str) -> None:
    line = errors.error_line(RuntimeError(message))
    assert line.startswith("error: a DataLoader worker (pid")
    assert "use fewer --data.num_workers" in line
    assert errors.error_line(ValueError(message)) is None


def test_a_worker_that_a_scheduler_terminated_is_not_blamed_on_memory() -> None:
    line = errors.error_line(RuntimeError("DataLoader worker (pid 123) is killed by signal: Terminated. "))
    assert line == (
        "error: a DataLoader worker (pid 123) is killed by signal: Terminated, by a scheduler if it stopped the run; "
        "resume with --ckpt_path and last.ckpt"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "value is not a valid input"),
        ({"accelerator": "tpu"}, "torch_xla"),
        ({"gradient_clip_algorithm": "median"}, "`gradient_clip_algorithm` median is invalid"),
        ({"gradient_clip_val": "high"}, "`gradient_clip_val` should be an int or a float"),
        ({"strategy": "fsdp"}, "requires a GPU accelerator"),
        ({"strategy": "fast"}, "invalid strategy name"),
        ({"precision": "transformer-engine"}, "transformer_engine"),
        ({"enable_checkpointing": False, "callbacks": [ModelCheckpoint()]}, "found `ModelCheckpoint` in callbacks"),
        ({"limit_val_batches": -1}, "limit_val_batches"),
        ({"barebones": True, "fast_dev_run": True}, "barebones"),
        ({"max_time": "1 hour"}, "not a valid duration"),
    ],
)
def test_options_that_the_trainer_refuses_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=r".*") as error:
        Trainer(**{"accelerator": "cpu", "devices": 1, "logger": False} | options)
    line = errors.error_line(error.value)
    assert line is not None
    assert line.startswith("error: the trainer refuses its options (")
    assert line.endswith("): correct the --trainer options")
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MisconfigurationException("no\n  batches"), "error: no batches"),
        (
            RuntimeError("upsample_bicubic2d_backward_out_cuda does not have a deterministic implementation, but ..."),
            (
                "error: upsample_bicubic2d_backward_out_cuda does not have a deterministic implementation, which the "
                "model needs: pass --trainer.deterministic warn, or leave it out"
            ),
        ),
        (
            RuntimeError("Early stopping conditioned on metric `a` which is not available. Use the following: `loss`"),
            "error: Early stopping conditioned on metric `a` which is not available. Use the following: `loss`",
        ),
        (
            TypeError("Sidn does not support len()"),
            (
                "error: Sidn cannot be used with torch.compile around it: pass the model itself, and compile its "
                "network with model.model.compile()"
            ),
        ),
        (RuntimeError("a"), None),
        (TypeError("a"), None),
    ],
)
def test_known_errors_of_torch_and_lightning_are_one_line(error: Exception, line: str | None) -> None:
    assert errors.error_line(error) == line


@pytest.mark.parametrize(("present", "reason"), [("file", "Not a directory"), ("tested", "Is a directory")])
def test_a_results_folder_that_cannot_be_created_is_one_line(tmp_path: Path, present: str, reason: str) -> None:
    root = tmp_path / "results"
    root.touch() if present == "file" else (root / "Padim/data/latest").mkdir(parents=True)  # as a test before training
    model, data = SimpleNamespace(name="Padim"), SimpleNamespace(name="data", category="")
    with pytest.raises(OSError, match=reason) as error:
        Engine(default_root_dir=root)._setup_workspace(model, datamodule=data, versioned_dir=True)
    line = errors.error_line(error.value)
    assert line.startswith(f"error: the results folder {root}/Padim/data")
    assert line.endswith(f" cannot be created ({reason}): rename what is there, or choose another --default_root_dir")


def test_an_error_caused_by_a_user_error_becomes_its_line() -> None:
    error = RuntimeError("training stopped")
    error.__cause__ = InvalidInputError("a is 1")
    assert errors.error_line(error) == "error: a is 1"


def test_an_error_while_handling_a_user_error_has_no_line() -> None:
    error = ZeroDivisionError()
    error.__context__ = InvalidInputError("a is 1")
    assert errors.error_line(error) is None


def test_circular_causes_terminate() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert errors.error_line(first) is None


def test_a_user_error_in_a_worker_process_becomes_its_line() -> None:
    error = raised_by(next, iter(DataLoader(CorruptDataset(), num_workers=1)))
    assert "Original Traceback" in str(error)
    assert errors.error_line(error) == "error: image a.png is corrupt: delete it"


@pytest.mark.parametrize("union", [Thing | None, Thing | str | None, Dataset | Thing | str | Path])
def test_an_error_in_a_class_that_jsonargparse_instantiates_becomes_its_line(union: type) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--thing", type=union)
    parsed = parser.parse_args(["--thing", f"{__name__}.Thing", "--thing.width", "0"])
    error = raised_by(parser.instantiate_classes, parsed)
    assert errors.error_line(error) == "error: width is 0; it must be 1 or more"


def test_an_error_in_a_nested_class_becomes_its_line() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--box", type=Box | None)
    parsed = parser.parse_args(
        ["--box", f"{__name__}.Box", "--box.thing", f"{__name__}.Thing", "--box.thing.width", "-2"]
    )
    error = raised_by(parser.instantiate_classes, parsed)
    assert errors.error_line(error) == "error: width is -2; it must be 1 or more"
