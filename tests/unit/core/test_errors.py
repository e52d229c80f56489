"""One line for an error that the user can mend."""

import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from torch.utils.data import DataLoader, Dataset

from anomalib_defect_plugins.core import errors
from anomalib_defect_plugins.core.environment import TRACEBACK_VARIABLE
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.plugins import excepthook


class Thing:
    """Something that a command line can make."""

    def __init__(self, width: int = 1) -> None:
        if width < 1:
            msg = f"width is {width}; it must be 1 or more"
            raise InvalidInputError(msg)


class Box:
    """Something that holds another thing."""

    def __init__(self, thing: Thing | None = None) -> None:
        self.thing = thing


class Broken(Dataset):
    """A data set with one image, which cannot be read."""

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
    "said",
    [
        "DataLoader worker (pid 123) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 123, 45) exited unexpectedly",
        "DataLoader worker (pid 7) exited unexpectedly with exit code 1. Details are lost due to multiprocessing.",
    ],
)
def test_a_killed_process_that_read_images_is_one_line(said: str) -> None:
    line = errors.error_line(RuntimeError(said))
    assert line.startswith("error: a DataLoader worker (pid")
    assert "take fewer --data.num_workers" in line
    assert errors.error_line(ValueError(said)) is None


def test_a_process_that_a_scheduler_stopped_is_not_said_to_lack_memory() -> None:
    line = errors.error_line(RuntimeError("DataLoader worker (pid 123) is killed by signal: Terminated. "))
    assert line == (
        "error: a DataLoader worker (pid 123) is killed by signal: Terminated, as a scheduler does that stops a run; "
        "go on with --ckpt_path and the last.ckpt that is there"
    )


def test_an_error_that_a_user_error_caused_becomes_its_line() -> None:
    error = RuntimeError("training stopped")
    error.__cause__ = InvalidInputError("a is 1")
    assert errors.error_line(error) == "error: a is 1"


def test_a_fault_in_handling_a_user_error_is_not_taken_for_it() -> None:
    error = ZeroDivisionError()
    error.__context__ = InvalidInputError("a is 1")
    assert errors.error_line(error) is None


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert errors.error_line(first) is None


def test_an_error_of_a_worker_process_becomes_the_line_that_the_worker_raised() -> None:
    error = raised_by(next, iter(DataLoader(Broken(), num_workers=1)))
    assert "Original Traceback" in str(error)
    assert errors.error_line(error) == "error: image a.png is corrupt: delete it"


@pytest.mark.parametrize("union", [Thing | None, Thing | str | None, Dataset | Thing | str | Path])
def test_an_error_of_a_class_made_by_the_command_line_becomes_its_line(union: type) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--thing", type=union)
    parsed = parser.parse_args(["--thing", f"{__name__}.Thing", "--thing.width", "0"])
    error = raised_by(parser.instantiate_classes, parsed)
    assert errors.error_line(error) == "error: width is 0; it must be 1 or more"


def test_an_error_of_a_class_inside_a_class_becomes_its_line() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--box", type=Box | None)
    parsed = parser.parse_args(
        ["--box", f"{__name__}.Box", "--box.thing", f"{__name__}.Thing", "--box.thing.width", "-2"]
    )
    error = raised_by(parser.instantiate_classes, parsed)
    assert errors.error_line(error) == "error: width is -2; it must be 1 or more"


@pytest.mark.parametrize(
    ("error", "variable", "passed_on"),
    [(InvalidInputError("a is 1"), "0", False), (InvalidInputError("a is 1"), "1", True), (KeyError("a"), "0", True)],
)
def test_the_hook_prints_user_errors_and_passes_on_the_others(
    error: Exception,
    variable: str,
    passed_on: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    others: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, other, _traceback: others.append(other))
    monkeypatch.setenv(TRACEBACK_VARIABLE, variable)
    excepthook.install_excepthook()
    sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == ("" if passed_on else "error: a is 1\n")
    assert others == ([error] if passed_on else [])


def test_the_hook_is_installed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    excepthook.install_excepthook()
    installed = sys.excepthook
    excepthook.install_excepthook()
    assert sys.excepthook is installed


@pytest.mark.parametrize(
    ("started_as", "expected"),
    [("bin/anomalib", True), ("anomalib.exe", True), ("bin/anomalib-defects", False), ("-c", False), ("pytest", False)],
)
def test_the_hook_is_for_the_command_anomalib(started_as: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [started_as, "train"])
    assert excepthook.is_anomalib_command() is expected
