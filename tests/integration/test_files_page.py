"""``docs/benchmark-files.md`` names the keys and columns that are written, no more and no fewer."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from anomalib_defect_plugins.benchmark.environment import describe_environment
from anomalib_defect_plugins.benchmark.export_check import ExportComparison
from anomalib_defect_plugins.data import split_file
from anomalib_defect_plugins.demo.services.example_model import EXAMPLE
from anomalib_defect_plugins.inference.resumable_table import schema
from anomalib_defect_plugins.models.components import prediction_table
from anomalib_defect_plugins.results import image_table
from anomalib_defect_plugins.results.folder import make_row
from anomalib_defect_plugins.results.record import LatencyRow, RunRecord, read_record

ROOT = Path(__file__).parents[2]
RUN = ROOT / "tests/fixtures/before_rebuild/benchmark_results/runs/83b1c6801bd2f9a6/run.json"


def documented(heading: str) -> list[str]:
    """Return the names in the first column of the table below a heading."""
    page = (ROOT / "docs/benchmark-files.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    first = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    return [name for cell in first for name in re.findall(r"`([^`]+)`", cell)]


@pytest.fixture(scope="module")
def record() -> RunRecord:
    """The record of a finished run with latency."""
    return read_record(RUN)


def test_the_keys_of_a_run(record: RunRecord) -> None:
    assert documented("run.json") == list(record.to_dict())
    assert sorted(documented("cost")) == sorted(record.cost)
    assert documented("environment") == [*describe_environment(), "threads", "runner", "shared"]
    assert {*record.split} <= {*documented("split")}
    assert documented("latency") == [field.name for field in fields(LatencyRow)]
    summary = ExportComparison(labels=[True, False], expected=[1.0, 0.0], found=[1.0, 0.0]).summary()
    assert documented("Comparison of a graph") == list(summary)
    metrics = json.loads((EXAMPLE / "metrics.json").read_text(encoding="utf-8"))
    assert sorted(documented("metrics")) == sorted(metrics)


def test_the_columns_of_the_table_of_runs(record: RunRecord) -> None:
    named = {*documented("results.csv"), *record.metrics, *record.cost}
    for column in make_row(record, record.run):
        is_number = re.fullmatch(r"(torch|openvino)_FP32_CPU_batch[18]_\w+|export_difference_FP32|split_\w+", column)
        assert column in named or is_number, column


@pytest.mark.parametrize(
    ("heading", "columns"),
    [
        ("images.csv", image_table.COLUMNS),
        ("split.csv", split_file.COLUMNS),
        ("predictions.csv", prediction_table.COLUMNS),
        ("The table of an inspection", schema().names),
    ],
)
def test_the_columns_of_a_table(heading: str, columns: list[str]) -> None:
    assert documented(heading) == [*columns]
