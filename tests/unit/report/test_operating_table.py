"""Operating points in a report: cost curves, and the marks of thresholds that saw test labels."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_folder import make_content, make_run, write_run, write_table

from anomalib_defect_plugins.report import captions, tables, write_report
from anomalib_defect_plugins.report.heat_map import heat_map
from anomalib_defect_plugins.report.operating_table import operating_table
from anomalib_defect_plugins.report.plots import draw_cost_curves
from anomalib_defect_plugins.report.summary import Summary, summarize
from anomalib_defect_plugins.report.tables import Table
from anomalib_defect_plugins.report.tested_images import threshold_origin
from anomalib_defect_plugins.results.reader import read_results


def summary_of(root: Path, *contents: dict[str, Any]) -> Summary:
    for content in contents:
        write_run(root / "runs" / content["key"], content)
    return summarize(read_results(root))


def texts_of(table: Table | None) -> dict[str, list[str]]:
    assert table is not None
    return {row[0].text: [("**" if cell.bold else "") + cell.text for cell in row[1:]] for row in table.rows}


def runs_of(values: Mapping[str, Sequence[float]], **more: Any) -> list[dict[str, Any]]:
    """Create runs on one data set from the image AUROC of each model by seed."""
    return [
        make_content(make_run(model, seed=seed), {"image_AUROC": value}, **more)
        for model, by_seed in values.items()
        for seed, value in enumerate(by_seed)
    ]


def write_errors(root: Path, model: str, misses: int, false_alarms: int, **more: Any) -> None:
    """Write a run with some errors among 10 good and 10 defective images."""
    content = make_content(make_run(model), {"image_F1Score": 0.9, "image_AUROC": 0.8}, **more)
    folder = root / "runs" / content["key"]
    write_run(folder, content)
    wrong = [(1, 0)] * misses + [(1, 1)] * (10 - misses) + [(0, 1)] * false_alarms + [(0, 0)] * (10 - false_alarms)
    rows = [
        {"image_path": "x.png", "label": label, "score": 0.5, "pred_label": pred, "map": ""} for label, pred in wrong
    ]
    write_table(folder / "images.csv", rows)


def test_the_cost_curve_has_the_expected_cost_at_each_ratio(tmp_path: Path) -> None:
    write_errors(tmp_path, "a", 1, 4)
    figure = draw_cost_curves(summarize(read_results(tmp_path)))
    assert figure is not None
    curve, useless = (np.asarray(line.get_ydata()) for line in figure.axes[0].lines)
    # Misses 0.1, false alarms 0.4: at equal costs half of both; 0.4 if only false alarms cost, 0.1 if only misses do.
    assert [curve[60], curve[0], curve[-1]] == pytest.approx([0.25, 0.4, 0.1], abs=2e-3)
    assert useless[60] == 0.5


def test_a_metric_whose_threshold_saw_test_labels_is_marked_and_no_winner_beside_others(tmp_path: Path) -> None:
    saw = {"train": 1, "test": 2, "hash": "0", "validation": "same_as_test"}
    write_errors(tmp_path, "a", 0, 0, split=saw)
    write_errors(tmp_path, "b", 0, 0, split={**saw, "validation": "from_dir"})
    write_errors(tmp_path, "c", 0, 0, split={**saw, "threshold": "training images"})
    summary = summarize(read_results(tmp_path))
    (table,) = tables.metric_tables(summary)
    assert {name: cells[2:4] for name, cells in texts_of(table).items()} == {
        # With two test images, a random ranking is right, too: §.
        "a": ["0.900 ‡", "0.800 §"],
        "b": ["0.900", "0.800 §"],
        "c": ["0.900", "0.800 §"],
    }
    cells = {model: row[0].text for _, model, row in heat_map("image_F1Score", summary).rows}
    assert cells == {"a": "0.900 ‡", "b": "0.900", "c": "0.900"}
    assert {row.model: threshold_origin(row.records[0]) for row in summary.rows} == {
        "a": "test labels ‡",
        "b": "validation images",
        "c": "training images",
    }
    note = captions.with_images("Note.", summary)
    assert note.startswith("Note. Test images: brick 10 good and 10 defective. ‡: at a threshold that was chosen on")


def test_a_threshold_that_saw_test_labels_wins_only_among_its_like(tmp_path: Path) -> None:
    content = runs_of({"a": [0.90, 0.92, 0.94], "b": [0.80, 0.82, 0.84]})
    for run in content:
        run["metrics"] = {"image_F1Score": run["metrics"]["image_AUROC"]}
        run["split"] = {**run["split"], "validation": "same_as_test"}
    assert {model for model, *_ in summary_of(tmp_path / "all", *content).best} == {"a"}
    for run in content[3:]:
        run["split"]["validation"] = "from_dir"
    assert summary_of(tmp_path / "one", *content).best == set()


def test_operating_points_name_the_images_behind_them_and_mark_thresholds_that_saw_test_labels(tmp_path: Path) -> None:
    content = make_content(make_run("a", seed=0), {"image_AUROC": 0.9}) | {"thresholds": {"image": 0.5, "pixel": None}}
    summary_of(tmp_path, content)
    folder = tmp_path / "runs" / content["key"]
    rows = [("good", 0, 0.2)] * 19 + [("good", 0, 0.7)] + [("crack", 1, 0.9)] * 8 + [("hole", 1, 0.1), ("hole", 1, 0.8)]
    lines = [f"{n}.png,{label},{kind},{score},{int(score >= 0.5)},8,8," for n, (kind, label, score) in enumerate(rows)]
    header = "image_path,label,defect_type,score,pred_label,width,height,map"
    (folder / "images.csv").write_text("\n".join([header, *lines]))
    table = operating_table(summarize(read_results(tmp_path)))
    assert table is not None
    # Clopper and Pearson: 1 of 10 is 0.25 to 44.5 %, 1 of 20 is 0.13 to 24.9 %.
    expected = ["20", "10", "10.0 (0.3 to 44.5)", "5.0 (0.1 to 24.9)", "crack 8/8, hole 1/2"]
    assert [cell.text for cell in table.rows[0]][3:8] == expected
    assert table.rows[0][8].text == "not recorded"
    content["run"]["data"]["init_args"] = {"val_split_mode": "same_as_test"}
    (folder / "run.json").write_text(json.dumps(content))
    summary = summarize(read_results(tmp_path))
    assert threshold_origin(summary.rows[0].records[0]) == "test labels ‡"
    assert "test labels ‡" in Path(write_report(tmp_path)).read_text(encoding="utf-8")
