"""Bad input to ``anomalib train --model htpgan``: a one-line error, no traceback, exit code 1."""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from dataset_layouts import write_crack_forest
from PIL import Image
from scipy.io import savemat

from anomalib_defect_plugins.testing import write_folder_data

pytestmark = pytest.mark.slow

ANOMALIB = str(Path(sys.executable).with_name("anomalib"))

RUN_COMMANDS = """
    import contextlib, io, json, pathlib, sys

    anomalib, commands, results_file = sys.argv[1:]
    sys.argv = [anomalib]
    from anomalib.cli.cli import main

    results = {}
    for name, words in json.loads(pathlib.Path(commands).read_text()).items():
        sys.argv = [anomalib, *words]
        output, code = io.StringIO(), 0
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                main()
            except SystemExit as end:
                code = end.code
            except BaseException:
                sys.excepthook(*sys.exc_info())  # as the interpreter does
                code = 1
        results[name] = [code, output.getvalue()]
    pathlib.Path(results_file).write_text(json.dumps(results))
"""
"""Program that runs all commands in one process, in a fraction of the time of separate ones."""

TINY = {
    "--model": "htpgan",
    "--model.image_size": "[64,64]",
    "--model.num_scales": "2",
    "--model.min_size": "32",
    "--model.width": "2",
    "--model.iterations_per_scale": "2",
    "--trainer.accelerator": "cpu",
    "--trainer.logger": "false",
    "--trainer.enable_progress_bar": "false",
}


def folder(root: Path) -> dict[str, str]:
    """Write a data set and return the arguments of anomalib's ``Folder`` for it."""
    write_folder_data(root, normal=3, normal_test=2, defective=2)
    names = {"normal_dir": "normal", "normal_test_dir": "normal_test", "abnormal_dir": "defective", "mask_dir": "masks"}
    settings = {"name": "set", "root": str(root), "num_workers": "0", **names}
    return {"--data": "Folder", **{f"--data.{name}": value for name, value in settings.items()}}


def crack_forest(root: Path) -> dict[str, str]:
    """Write a data set in the layout of CrackForest and return the arguments for it."""
    write_crack_forest(root, np.ones((36, 40), np.uint8))
    return {"--data": "CrackForest", "--data.root": str(root)}


def texture_defects(root: Path) -> dict[str, str]:
    """Return the arguments of the embedded data set; nothing is built yet."""
    return {"--data": "TextureDefects", "--data.root": str(root), "--data.image_size": "64"}


def nothing(_: Path) -> None:
    """Leave the data unchanged."""


def empty(name: str = ".") -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        shutil.rmtree(root / name)
        (root / name).mkdir()

    return spoil


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def write(name: str, content: bytes = b"no image") -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(content)


def cut(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:400])


def resize(name: str, size: tuple[int, int]) -> Callable[[Path], None]:
    return lambda root: Image.effect_noise(size, 60).convert("RGB").save(root / name)


def empty_mask(name: str, size: tuple[int, int]) -> Callable[[Path], None]:
    return lambda root: Image.new("L", size).save(root / name)


def cut_mask(root: Path) -> None:
    truth = {"Segmentation": np.ones((36, 41), np.uint8)}
    savemat(root / "groundTruth" / "001.mat", {"groundTruth": truth})


class Case(NamedTuple):
    """Data, a function that damages it, further arguments, and the expected error."""

    data: Callable[[Path], dict[str, str]]
    spoil: Callable[[Path], object]
    arguments: dict[str, str]
    line: str


CASES = {
    "an empty folder": Case(folder, empty(), {}, r"Folder cannot be set up \(Path does not exist: .*normal\); check"),
    "no folder at all": Case(folder, shutil.rmtree, {}, r"Folder cannot be set up \(Path does not exist: .*normal\)"),
    "no normal image": Case(folder, empty("normal"), {}, r"Folder cannot be set up \(Found 0 .*images in .*normal "),
    "no crack-free image": Case(
        crack_forest,
        remove("image/201.jpg"),
        {},
        r"\S*201\.jpg is missing; \S+ must contain image/NNN\.jpg .* from https://",
    ),
    "a reference that is no image": Case(
        folder, write("normal/000.png"), {}, r"cannot read image .*normal/000\.png \(.*\); replace"
    ),
    "a reference that is cut": Case(
        folder, cut("normal/001.png"), {"--model.reference": "1"}, r"cannot read image .*normal/001\.png \("
    ),
    "a cut photograph": Case(
        crack_forest, cut("image/203.jpg"), {"--model.reference": "203.jpg"}, r"cannot read image .*203\.jpg"
    ),
    "a test image that is no image": Case(
        folder, write("defective/001.png"), {}, r"cannot read image .*defective/001\.png \(.*\); replace"
    ),
    "a test image that is cut": Case(crack_forest, cut("image/118.jpg"), {}, r"cannot read image .*118\.jpg"),
    "an image smaller than the coarsest scale": Case(
        folder,
        resize("normal/000.png", (50, 31)),
        {},
        r"the reference image .*000\.png is 50x31, smaller than the coarsest scale \(32 pixels\): .*--model\.min_size",
    ),
    "a position out of range": Case(
        texture_defects, nothing, {"--model.reference": "40"}, r"reference is 40, but TextureDefects has 40 normal "
    ),
    "an unknown name": Case(
        folder, nothing, {"--model.reference": "009.png"}, r"reference is '009\.png', but none of .*'000\.png'"
    ),
    "one scale": Case(folder, nothing, {"--model.num_scales": "1"}, r"num_scales is 1; .* 2 to 12 scales"),
    "thirteen scales": Case(folder, nothing, {"--model.num_scales": "13"}, r"num_scales is 13; .* 2 to 12 scales"),
    "a coarsest scale as large as the image": Case(
        folder, nothing, {"--model.min_size": "64"}, r"min_size is 64; at an image size of \(64, 64\) it must be 16 to"
    ),
    "a mask of another size": Case(
        folder,
        empty_mask("masks/001.png", (80, 70)),
        {},
        r"mask .*001\.png is 80x70 pixels and its image .*001\.png 80x72",
    ),
    "a mask of another size in a .mat file": Case(
        crack_forest, cut_mask, {}, r"mask .*001\.mat is 41x36 pixels and its image .*001\.jpg 40x36"
    ),
    "a mask that is missing": Case(folder, remove("masks/000.png"), {}, r"Folder cannot be set up \(Mismatch between"),
    "no data": Case(lambda _: {}, nothing, {}, r"HtpGan picks its reference image from a data module: .*--data"),
}


def command(case: Case, root: Path) -> list[str]:
    """Write the data of a case and return the arguments of the command."""
    root.mkdir()
    arguments = TINY | case.data(root / "data") | {"--default_root_dir": str(root / "results")} | case.arguments
    case.spoil(root / "data")
    return ["train", *(word for pair in arguments.items() for word in pair)]


class Result(NamedTuple):
    """Exit code and output of a command."""

    code: int
    output: str


def check(result: Result, line: str) -> None:
    """Check that the output ends with one line of an error, without a traceback."""
    assert result.code == 1, result.output
    assert "Traceback" not in result.output
    errors = [text for text in result.output.splitlines() if "error:" in text.lower()]
    assert len(errors) == 1, result.output
    assert re.match(f"error: {line}", result.output.splitlines()[-1]), errors


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Results of the cases by name."""
    root = tmp_path_factory.mktemp("bad_input")
    commands = {name: command(case, root / str(number)) for number, (name, case) in enumerate(CASES.items())}
    commands_file, results_file = root / "commands.json", root / "results.json"
    commands_file.write_text(json.dumps(commands))
    program = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(RUN_COMMANDS)]
    arguments = [*program, ANOMALIB, str(commands_file), str(results_file)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=600, cwd=root)
    assert done.returncode == 0, done.stderr
    return {name: Result(*result) for name, result in json.loads(results_file.read_text()).items()}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_one_line(results: dict[str, Result], name: str) -> None:
    check(results[name], CASES[name].line)
