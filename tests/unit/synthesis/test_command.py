"""``anomalib-defects synthesize``, with a fake model."""

import json
import re
from pathlib import Path

import pytest
from dataset_layouts import write_image

from anomalib_defect_plugins.cli import main
from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.metrics import features
from anomalib_defect_plugins.metrics.features import Extractor, ResizedFeatures


@pytest.mark.usefixtures("fake")
def test_the_command_prints_a_summary(
    checkpoint: Path, data: DefectFolder, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--ckpt", str(checkpoint), "--data", "DefectFolder", "--root", str(data.root), "--out", str(out)]
    assert main(["synthesize", *words, "--data.num_workers", "0", "--num", "3", "--seed", "7"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"crack .* 2 .* 0 .* 0.0375 .* 4.17 %", printed)
    assert printed.endswith(f"data set: {out}\n")
    assert json.loads((out / "settings.json").read_text())["seed"] == 7


@pytest.mark.usefixtures("fake")
def test_the_command_writes_a_quality_report(
    checkpoint: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(30):
        write_image(tmp_path / "real" / ("good", "crack", "dent")[number % 3] / f"{number}.png")
    tiny = Extractor("test_resnet", ResizedFeatures("test_resnet", pre_trained=False).eval())
    monkeypatch.setattr(features, "make_extractor", lambda _: tiny)
    words = ["--ckpt", str(checkpoint), "--data", "DefectFolder", "--root", str(tmp_path / "real"), "--out", str(out)]
    assert main(["synthesize", *words, "--data.num_workers=0", "--num", "2", "--report", "test_resnet"]) == 0
    assert capsys.readouterr().out.endswith(f"report: {out}/_report/report.md\n")
    data = DefectFolder(out, num_workers=0)
    data.setup()  # the report is ignored
    assert {"crack", "dent"} == set(data.test_data.samples.defect_type) - {"good"}


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--category", "rust"], "there is no category 'rust'; the checkpoint knows crack, dent"),
        (
            ["--data", "DefectFolders"],
            r"there is no data module 'DefectFolders'; did you mean DefectFolder or Folder\?",
        ),
        (["--colour", "x"], r"DefectFolder cannot be set up \(.*--data.colour x\); .*"),
        (["--num", "0"], "--num is 0; it must be 1 or more"),
        (["--report", "no_net"], r"timm cannot load model 'no_net' with its weights \(Unknown model.*"),
    ],
)
def test_the_command_reports_invalid_input_in_one_line(
    words: list[str],
    line: str,
    checkpoint: Path,
    data: DefectFolder,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--ckpt", str(checkpoint), "--data", "DefectFolder", "--root", str(data.root), "--out", str(out)]
    assert main(["synthesize", *given, *words]) == 1
    assert re.fullmatch(f"error: {line}\n", capsys.readouterr().err)
    assert not out.exists()
