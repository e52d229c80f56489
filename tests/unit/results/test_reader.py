"""Reading a results folder: which runs are read, in which order, and how unreadable files are handled."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from results_folder import Layout, key_of, make_content, make_run, write_results, write_run, write_table

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.report import write_report
from anomalib_defect_plugins.report.summary import distinguish, summarize
from anomalib_defect_plugins.results.reader import read_results

SMALL = Layout(models=("a",), data=("brick",), seeds=(0, 1), images=2, maps=False, latency=False)


def write(root: Path, *contents: dict[str, Any]) -> Path:
    for content in contents:
        write_run(root / "runs" / content["key"], content)
    return root


def test_runs_have_the_order_and_the_labels_of_the_table(tmp_path: Path) -> None:
    first, second = (make_content(make_run(model), {"image_AUROC": 0.5}) for model in "ab")
    write(tmp_path, first, second)
    rows = [{"key": second["key"], "model": "newer"}, {"key": first["key"], "model": "older"}]
    write_table(tmp_path / "results.csv", rows)
    assert [record.run.model.name for record in read_results(tmp_path).done] == ["newer", "older"]


def test_finished_runs_that_the_table_does_not_list_are_only_counted(tmp_path: Path) -> None:
    first, second = (make_content(make_run(seed=seed), {"image_AUROC": 0.5}) for seed in (0, 1))
    write(tmp_path, first, second)
    write_table(tmp_path / "results.csv", [{"key": first["key"]}])
    results = read_results(tmp_path)
    assert [record.run.seed for record in results.done] == [0]
    assert results.other == 1


def test_runs_in_progress_are_ignored(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / ".abc-123.partial" / "run", {})
    write(tmp_path, make_content(make_run(), {}))
    assert len(read_results(tmp_path).done) == 1


BROKEN = [
    *("", "{", "[]", "null", '{"status": "done"}', '{"status": "odd", "run": {}}'),
    '{"status": "done", "run": {"model": 3}}',
]


@pytest.mark.parametrize("text", BROKEN)
def test_an_unreadable_run_is_left_out_with_file_and_reason(tmp_path: Path, text: str) -> None:
    root = write_results(tmp_path / "made", SMALL)
    broken = sorted((root / "runs").iterdir())[0] / "run.json"
    broken.write_text(text)
    results = read_results(root)
    (line,) = results.left_out
    assert re.fullmatch(f"{broken}: not a run \\(.+\\); delete its folder and start the benchmark again", line)
    assert len(results.done) == 1


def test_an_unreadable_run_is_listed_in_the_report_and_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_results(tmp_path / "made", SMALL)
    broken = sorted((root / "runs").iterdir())[0] / "run.json"
    broken.write_text("{")
    page = write_report(root)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"left out: {broken}: not a run (")
    assert str(broken) in page.read_text()
    assert "Left out" in (page.parent / "report.md").read_text()
    assert "1 seed: 1 run done, 1 unreadable." in page.read_text()


def test_a_run_of_the_table_without_a_file_is_listed(tmp_path: Path) -> None:
    root = write_results(tmp_path / "made", SMALL)
    missing = sorted((root / "runs").iterdir())[0] / "run.json"
    missing.unlink()
    assert read_results(root).left_out == (f"{missing}: the file is missing; start the benchmark again",)


def test_keys_of_the_table_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    root = write_results(tmp_path / "made", SMALL)
    table = root / "results.csv"
    table.write_text(table.read_text() + "../../elsewhere,done,x,x,x,0\n")
    assert not read_results(root).left_out


def test_unknown_metrics_and_times_are_left_out(tmp_path: Path) -> None:
    times = {"median_ms": None, "p95_ms": None, "p99_ms": None, "images_per_second": None}
    row = {"engine": "openvino", "precision": "INT8", "device": "CPU", "batch": 8, **times, "reason": "no NNCF"}
    metrics = {"image_AUROC": None, "pixel_AUROC": float("nan"), "pixel_IoU": 0.5}
    write(tmp_path, make_content(make_run(), metrics, cost={"flops": None, "parameters": 3}, latency=[row]))
    (record,) = read_results(tmp_path).done
    assert record.metrics == {"pixel_IoU": 0.5}
    assert record.cost == {"flops": None, "parameters": 3}
    assert record.measured_latency == ()
    assert record.unmeasured == {("openvino", "INT8", "CPU", 8): "no NNCF"}


def test_for_a_missing_folder_the_error_names_the_command_that_creates_one(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"there is no results folder .*none; 'anomalib-defects benchmark"):
        read_results(tmp_path / "none")


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="has no finished run"):
        read_results(tmp_path)


def test_a_key_does_not_depend_on_labels() -> None:
    # The helper of the tests must behave like RunSpec.key.
    run = make_run()
    assert key_of(run) == key_of({**run, "model": {**run["model"], "name": "another"}})


def test_models_with_the_same_label_are_distinguished_by_the_settings_that_differ(tmp_path: Path) -> None:
    runs = [make_run(seed=seed) for seed in (0, 1)] + [make_run()]
    runs[-1]["model"]["init_args"]["backbone"] = "resnet50"
    write(tmp_path, *(make_content(run, {"image_AUROC": 0.5}) for run in runs))
    summary = summarize(read_results(tmp_path))
    assert {(row.model, len(row.records)) for row in summary.rows} == {
        ("PaDiM (backbone=resnet18)", 2),
        ("PaDiM (backbone=resnet50)", 1),
    }


def test_another_trainer_is_another_row(tmp_path: Path) -> None:
    runs = [make_run(), {**make_run(), "trainer": {"max_epochs": 9}}]
    write(tmp_path, *(make_content(run, {"image_AUROC": 0.5}) for run in runs))
    assert set(summarize(read_results(tmp_path)).models) == {"PaDiM (max_epochs=3)", "PaDiM (max_epochs=9)"}


def test_different_labels_are_not_changed(tmp_path: Path) -> None:
    write(tmp_path, *(make_content(make_run(model), {}) for model in ("a", "b")))
    records = read_results(tmp_path).done
    assert set(distinguish([(record.run.model, {}) for record in records])) == {"a", "b"}


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    root = write_results(tmp_path / "made", SMALL)
    program = (
        "import sys; from pathlib import Path; from anomalib_defect_plugins.report import write_report;"
        f"write_report(Path({json.dumps(str(root))}));"
        "print(sorted({'torch', 'lightning', 'anomalib', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
