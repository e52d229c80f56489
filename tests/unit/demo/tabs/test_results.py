"""Server side of the Results tab: what its first page reads."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from demo_results import MADE
from PIL import Image
from results_folder import Layout, write_results

pytest.importorskip("gradio", reason="gradio is not installed")

import gradio as gr

from anomalib_defect_plugins.demo.components.run_comparison import RunPair, render_comparison
from anomalib_defect_plugins.demo.services import results_store
from anomalib_defect_plugins.demo.services.benchmark_process import BenchmarkProcess
from anomalib_defect_plugins.demo.services.results_store import ResultsStore
from anomalib_defect_plugins.demo.tabs.results import BenchmarkFigures, BuiltInBenchmark, RunComparison


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("results") / "made", MADE).parent


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Number of results folders, tables of images and pictures that are read."""
    counts: Counter[str] = Counter()

    def count(name: str, owner: Any, attribute: str) -> None:
        function = getattr(owner, attribute)

        def counted(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(owner, attribute, counted)

    count("folders", results_store, "read_results")
    count("tables", results_store, "read_image_table")
    count("pictures", Image, "open")
    return counts


def test_first_page_of_50_runs_with_200_images_reads_two_tables_and_a_page_of_pictures(
    root: Path, reads: Counter[str]
) -> None:
    store = ResultsStore(root)
    with gr.Blocks():
        figures, comparison = BenchmarkFigures(store), RunComparison(store)
    table = figures.open()[figures.figure]
    selection = comparison.open()
    assert table.count("<tr") == 51
    assert reads == {"folders": 1}
    a, b = (selection[dropdown]["value"] for dropdown in (comparison.a, comparison.b))
    image = comparison.show_first(a, b, "all", "either")
    assert image.count("<img") == 6 + 12
    assert (reads["folders"], reads["tables"]) == (1, 2)
    assert reads["pictures"] < 2 * 12  # for 12 thumbnails and the parts of two heat maps
    figures.open()  # by another user
    assert reads["folders"] == 1


def test_folder_of_saved_defects_is_not_a_results_folder(tmp_path: Path) -> None:
    (tmp_path / "results/synthetic/runs/hole").mkdir(parents=True)
    assert ResultsStore(tmp_path / "results").summaries() == {}


def test_new_runs_are_offered_for_comparison_without_a_reload(tmp_path: Path) -> None:
    store = ResultsStore(write_results(tmp_path / "made", Layout(models=("HtpGan",), seeds=(0,), images=2)).parent)
    with gr.Blocks():
        comparison = RunComparison(store)
    data = comparison.open()[comparison.data]["value"]
    write_results(tmp_path / "more", Layout(models=("Sidn",), seeds=(0,), images=2))
    choices = comparison.refresh(data)[comparison.b]["choices"]
    assert any("Sidn" in label for label, _ in choices)


def test_a_threshold_that_saw_test_labels_is_marked_beside_one_that_did_not(tmp_path: Path) -> None:
    store = ResultsStore(write_results(tmp_path / "made", Layout(data=("brick",), seeds=(0,), images=2)).parent)
    a, b = store.runs()
    split = {**a.record.split, "validation": "same_as_test"}
    saw, saw_not = (replace(run, record=replace(run.record, split=split)) for run, split in ((a, split), (b, {})))
    page = render_comparison(RunPair(store, saw, saw_not))
    assert page.count("threshold 0.500 ‡") == page.count("mask ‡") == 1
    assert "chosen on the labels of the test images" in page
    assert "‡" not in render_comparison(RunPair(store, saw_not, saw_not))


def test_only_who_started_the_benchmark_can_stop_it(tmp_path: Path) -> None:
    process = BenchmarkProcess(tmp_path / "embedded")
    with gr.Blocks():
        benchmark = BuiltInBenchmark(process, gr.BrowserState(""))
    running = replace(process.progress(), state="running", owner="me")
    stops = []
    process.progress = lambda: running  # type: ignore[method-assign]
    process.stop = lambda: stops.append(1)  # type: ignore[method-assign]
    for token, count in (("stranger", 0), ("", 0), ("me", 1)):
        benchmark.stop(token)
        assert benchmark.show_progress(0, token)[benchmark.stop_button]["visible"] == bool(count)
        assert len(stops) == count


def test_deleted_results_are_reported(tmp_path: Path) -> None:
    store = ResultsStore(write_results(tmp_path / "made", Layout(seeds=(0,), images=2)).parent)
    with gr.Blocks():
        figures, comparison = BenchmarkFigures(store), RunComparison(store)
    opened = {**figures.open(), **comparison.open()}
    a, b = (opened[dropdown]["value"] for dropdown in (comparison.a, comparison.b))
    data, benchmark = opened[comparison.data]["value"], opened[figures.benchmark]["value"]
    shutil.rmtree(tmp_path / "made")
    assert "no run" in comparison.show_first(a, b, "all", "either")
    assert comparison.refresh(data)[comparison.a]["choices"] == []
    assert comparison.select_data(data)[comparison.a]["value"] is None
    assert "results folder" in figures.draw("Table", benchmark, [], [], [], [])
    with pytest.raises(gr.Error, match="results folder"):
        figures.select_benchmark("Table", benchmark)
