"""What the commit before the reorganisation of the package has written works: checkpoints, exports, results, splits.

``tests/fixtures/before_rebuild`` was written by that commit. Models were trained for seconds; the files only have the
right format.
"""

import importlib
import json
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from anomalib.cli.cli import main as anomalib_main
from anomalib.post_processing import PostProcessor

import anomalib_defect_plugins
from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.core.moved_modules import MOVED
from anomalib_defect_plugins.data import TextureDefects, WithDefects
from anomalib_defect_plugins.post_processing import UnitPostProcessor
from anomalib_defect_plugins.report import write_report
from anomalib_defect_plugins.results.image_table import read_image_table
from anomalib_defect_plugins.results.reader import read_results
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import fit, run_openvino

FORMER = Path(__file__).parents[1] / "fixtures/before_rebuild"

EXPECTED = json.loads((FORMER / "expected.json").read_text())
"""By method: the class, and its outputs for :func:`image` before the reorganisation."""


def image() -> torch.Tensor:
    """The image that the expected outputs belong to, (1, 3, 64, 64)."""
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def load(method: str) -> torch.nn.Module:
    """Load the checkpoint of a method."""
    cls = getattr(anomalib_defect_plugins, EXPECTED[method]["class"])
    return cls.load_from_checkpoint(FORMER / f"{method}.ckpt", map_location="cpu").eval()


def former_normalization(method: str, post_processor: PostProcessor) -> PostProcessor:
    """Return the post-processor with which a method normalised its outputs before the reorganisation."""
    former = PostProcessor() if method in {"htpgan", "cutpaste"} else UnitPostProcessor()
    former.load_state_dict(post_processor.state_dict())
    if method == "onestage":  # its thresholds of 1e-11 and 1e-9 were raised
        former._image_threshold.fill_(1e-6)
        former._pixel_threshold.fill_(1e-6)
    return former


@pytest.mark.parametrize("method", EXPECTED)
def test_a_checkpoint_gives_the_same_outputs(method: str) -> None:
    model = load(method)
    model.post_processor = former_normalization(method, model.post_processor)
    with torch.inference_mode():
        output = model(image())
    expected = EXPECTED[method]
    assert output.pred_score.flatten().tolist() == pytest.approx(expected["pred_score"], abs=1e-5)
    assert output.anomaly_map.mean().item() == pytest.approx(expected["map_mean"], abs=1e-5)
    assert output.anomaly_map.max().item() == pytest.approx(expected["map_max"], abs=1e-5)


def test_training_resumes_from_a_checkpoint(tmp_path: Path) -> None:
    write_folder_data(tmp_path / "data")
    model = anomalib_defect_plugins.HtpGan(
        image_size=(64, 64), num_scales=3, min_size=32, width=4, iterations_per_scale=5, visualizer=False
    )
    run = fit(model, folder_datamodule(tmp_path / "data"), tmp_path, {}, [], FORMER / "htpgan.ckpt")
    stored = torch.load(FORMER / "htpgan.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(run.model.state_dict()["seed"], stored["seed"])


def test_an_exported_graph_agrees_with_its_checkpoint() -> None:
    with torch.inference_mode():
        expected = load("sidn")(image())
    graph = run_openvino(FORMER / "openvino/model.xml", image())
    assert graph["pred_score"].item() == pytest.approx(expected.pred_score.item(), abs=1e-3)
    assert torch.allclose(torch.from_numpy(graph["anomaly_map"]), expected.anomaly_map, atol=1e-3)


def test_a_results_folder_is_read(tmp_path: Path) -> None:
    folder = shutil.copytree(FORMER / "benchmark_results", tmp_path / "results")
    results = read_results(folder)
    assert {record.run.model.name for record in results.done} == {"Sidn", "OneStage"}
    for record in results.done:
        stored = json.loads((record.folder / "run.json").read_text())
        assert record.metrics == stored["figures"]
        assert record.thresholds == stored["thresholds"]
        table = read_image_table(record.folder, record.thresholds["image"])
        assert table.pred_label.tolist() == (table.score >= record.thresholds["image"]).tolist()
    assert write_report(folder).read_text().count("OneStage") > 1


def test_the_runs_of_a_results_folder_count_as_done() -> None:
    folder = FORMER / "benchmark_results"
    keys = [run.key for run in read_benchmark(folder / "benchmark.yaml").runs]
    assert {path.name for path in (folder / "runs").iterdir()} <= set(keys)


def test_a_split_file_is_repeated(tmp_path: Path) -> None:
    split = FORMER / "split.csv"
    counts = Counter(line.partition(",")[0] for line in split.read_text().splitlines()[1:])
    data = WithDefects(TextureDefects(tmp_path, "gravel", 64, num_workers=0), split_file=split)
    data.prepare_data()
    data.setup()
    assert counts == {name: len(getattr(data, f"{name}_data")) for name in ("train", "val", "test")}


def test_a_dumped_configuration_is_parsed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["anomalib", "train", "--config", str(FORMER / "config.yaml"), "--print_config"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        anomalib_main()
    assert not end.value.code
    assert "procedural" in capsys.readouterr().out


@pytest.mark.parametrize("former", MOVED)
def test_a_former_module_is_an_alias_that_says_so(former: str) -> None:
    name = f"{anomalib_defect_plugins.__name__}.{former}"
    sys.modules.pop(name, None)
    with pytest.warns(FutureWarning, match=rf"^{name} has moved to .*; the old path works until version 0\.2"):
        module = importlib.import_module(name)
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018


def test_a_former_module_has_its_names() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from anomalib_defect_plugins.console import error_line
        from anomalib_defect_plugins.data.supervision import WithDefects as FormerWithDefects
        from anomalib_defect_plugins.errors import InvalidInputError, check_one_of
        from anomalib_defect_plugins.generators.defectgan import DefectGanDefects
        from anomalib_defect_plugins.models.training import StopAfter, check_finite, check_positive
    assert FormerWithDefects is WithDefects
    assert error_line(InvalidInputError("x")) == "error: x"
    assert all(map(callable, (check_one_of, check_finite, check_positive, StopAfter)))
    assert DefectGanDefects is anomalib_defect_plugins.generators.DefectGanDefects


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_plugin_that_was_written_by_the_former_command_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(FORMER / "plugin", tmp_path / "old_method")
    monkeypatch.syspath_prepend(tmp_path)
    from old_method import OldMethod

    write_folder_data(tmp_path / "data")
    model = OldMethod(image_size=(64, 64), channels=4, iterations=4)
    run = fit(model, folder_datamodule(tmp_path / "data"), tmp_path / "results", {}, [])
    loaded = OldMethod.load_from_checkpoint(run.checkpoint, map_location="cpu")
    assert loaded.hparams.image_size == (64, 64)
    assert loaded.iterations == 4
