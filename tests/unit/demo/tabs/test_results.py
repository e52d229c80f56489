"""Server side of the Results tab: what its first page reads."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from demo_results import MADE
from PIL import Image
from results_folder import write_results

pytest.importorskip("gradio", reason="gradio is not installed")

import gradio as gr

from anomalib_defect_plugins.demo.services import results_store
from anomalib_defect_plugins.demo.services.results_store import ResultsStore
from anomalib_defect_plugins.demo.tabs.results import BenchmarkFigures, RunComparison


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
