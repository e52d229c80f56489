"""Errors that users can fix become one line."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
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
