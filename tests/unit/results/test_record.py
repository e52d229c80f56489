"""``run.json``: what is written is read again, and so are files of older versions."""

import json
from pathlib import Path
from typing import Any

import pytest

from anomalib_defect_plugins.results.record import LatencyRow, RunRecord, read_record, write_record
from anomalib_defect_plugins.results.run_spec import ComponentSpec, KeepSpec, MeasureSpec, RunSpec

RUN = RunSpec(
    ComponentSpec("PaDiM", "Padim", {"backbone": "resnet18"}),
    ComponentSpec("brick", "TextureDefects", {"category": "brick"}),
    ComponentSpec("masks", "WithDefects", {"real": 10}),
    3,
    {"max_epochs": 2},
    MeasureSpec(),
)

OTHER = RunSpec(
    ComponentSpec("PaDiM", "Padim"),
    ComponentSpec("brick", "TextureDefects"),
    ComponentSpec("normal", None),
    0,
    {},
    MeasureSpec(False, ("FP32",), KeepSpec(False, True), 0.5),
)


@pytest.mark.parametrize(("run", "key"), [(RUN, "f44753a2653bd2de"), (OTHER, "8b18a3a7cce888da")])
def test_the_key_of_a_run_is_that_of_version_0_1(run: RunSpec, key: str) -> None:
    assert run.key == key
    assert RunSpec.from_dict(json.loads(json.dumps(run.to_dict()))).key == key


def make_record(folder: Path, **more: Any) -> RunRecord:
    return RunRecord(folder, RUN, None, {"cpu": "x", "shared": True}, "anomalib-defects benchmark", **more)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = make_record(
        tmp_path,
        metrics={"image_AUROC": 0.75},
        cost={"train_seconds": 3.5, "parameters": 100, "flops": None},
        map_range=(-1.5, 2.0),
        image_size=(64, 48),
        thresholds={"image": 0.25, "pixel": None},
        split={"train": 4, "test": 6, "hash": "ab"},
        latency=(
            LatencyRow("torch", "FP32", "CPU", 1, 5.0, 6.0, 7.0, 200.0, repeats=50),
            LatencyRow("openvino", "INT8", "CPU", 8, reason="no NNCF"),
        ),
        export_difference={"FP32": 1e-6, "INT8": None},
        export_changes={"FP32": {"images": 40, "changed_verdicts": 2, "image_AUROC": None}},
    )
    write_record(tmp_path, record)
    assert read_record(tmp_path / "run.json") == record


def test_a_record_of_version_0_1_is_read(tmp_path: Path) -> None:
    content = make_record(tmp_path, metrics={"image_AUROC": 0.75}).to_dict()
    content["figures"] = content.pop("metrics")
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert read_record(tmp_path / "run.json").metrics == {"image_AUROC": 0.75}


def test_labels_can_be_replaced(tmp_path: Path) -> None:
    write_record(tmp_path, make_record(tmp_path))
    record = read_record(tmp_path / "run.json", {"model": "newer"})
    assert (record.run.model.name, record.run.data.name) == ("newer", "brick")
    assert record.run.key == RUN.key


@pytest.mark.parametrize(("environment", "shared"), [({"runner": "serial"}, False), ({"runner": "ray"}, True)])
def test_without_a_statement_the_runner_determines_whether_the_machine_was_shared(
    tmp_path: Path, environment: dict[str, str], shared: bool
) -> None:
    assert RunRecord(tmp_path, RUN, None, environment, "").shared == shared
