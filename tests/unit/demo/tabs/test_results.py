"""The tab of results on the server: how long its first page takes."""

import time
from pathlib import Path

import pytest
from demo_results import MADE
from results_folder import write_results

pytest.importorskip("gradio", reason="gradio is not installed")

import gradio as gr

from anomalib_defect_plugins.demo.services.results_store import Store
from anomalib_defect_plugins.demo.tabs.results import Figures, Walk


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("results") / "made", MADE).parent


def test_of_50_runs_of_200_images_the_first_page_takes_less_than_a_second_and_the_next_a_tenth(root: Path) -> None:
    taken = []
    for _ in range(3):  # the machine may be busy
        with gr.Blocks():
            figures, walk = Figures(Store(root)), Walk(Store(root))
        began = time.thread_time()
        shown = figures.open()[figures.shown]
        chosen = walk.open()
        page = time.thread_time()
        first = walk.look(chosen[walk.a]["value"], chosen[walk.b]["value"], "all", "either")
        walked = time.thread_time()
        figures.open()  # by another visitor
        taken.append((page - began, walked - page, time.thread_time() - walked))
        assert shown.count("<tr") == 51
        assert first.count("<img") == 6 + 12
    least = [min(it) for it in zip(*taken, strict=True)]
    assert all(it < limit for it, limit in zip(least, (1, 1, 0.1), strict=True)), least


def test_the_folder_of_saved_defects_is_none_of_results(tmp_path: Path) -> None:
    (tmp_path / "results/synthetic/runs/hole").mkdir(parents=True)
    assert Store(tmp_path / "results").summaries() == {}
