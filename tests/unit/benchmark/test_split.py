"""The split that a run of a benchmark keeps is complete, and can be read again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datamodules import set_up
from dataset_layouts import write_dents

from anomalib_defect_plugins.benchmark.job import RunExecution
from anomalib_defect_plugins.data import DefectFolder, WithDefects


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dents(tmp_path / "data")


def data(root: Path, mode: str) -> DefectFolder:
    return DefectFolder(root, num_workers=0, val_split_mode=mode, val_split_ratio=0.25, test_ratio=0.25)


def keep(datamodule: Any, folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    execution = SimpleNamespace(data=datamodule, model=SimpleNamespace(post_processor=None))
    return RunExecution._split(execution, folder)  # type: ignore[arg-type]


def paths(datamodule: Any, name: str) -> set[str]:
    return set(getattr(datamodule, f"{name}_data").samples.image_path)


@pytest.mark.parametrize(
    ("mode", "splits"),
    [
        ("same_as_test", {"train", "test"}),
        ("none", {"train", "test"}),
        ("synthetic", {"train", "test"}),
        ("from_train", {"train", "val", "test"}),
        ("from_test", {"train", "val", "test"}),
    ],
)
@pytest.mark.parametrize("real", [0, 2])
def test_a_kept_split_can_be_repeated_with_its_validation_images(root, tmp_path, mode, splits, real):
    first: Any = set_up(WithDefects(data(root, mode), real=real) if real else data(root, mode))
    counts = keep(first, tmp_path / "run")
    rows = [line.partition(",")[0] for line in (tmp_path / "run" / "split.csv").read_text().splitlines()[1:]]
    assert set(rows) == splits
    assert {name: counts[name] for name in ("train", "test")} == {name: rows.count(name) for name in ("train", "test")}
    again = set_up(WithDefects(data(root, mode), split_file=tmp_path / "run" / "split.csv"))
    for name in ("train", "test", *(["val"] if mode not in {"none", "synthetic"} else [])):
        assert paths(again, name) == paths(first, name), name


def test_the_hash_is_that_of_training_and_test_images(root, tmp_path):
    first = set_up(data(root, "from_test"))
    kept = keep(first, tmp_path / "one")
    del first.val_data
    assert keep(first, tmp_path / "two")["hash"] == kept["hash"]
