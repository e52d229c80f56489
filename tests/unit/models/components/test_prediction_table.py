"""The table of a prediction: scores and labels of all batches, one file per process, none without images."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from anomalib_defect_plugins.models.components.prediction_table import PredictionTable


def write_table(folder: Path, batches: list[Any], threshold: float = 0.5, rank: int = 0, processes: int = 1) -> str:
    post_processor = SimpleNamespace(image_threshold=torch.tensor(threshold))
    model: Any = SimpleNamespace(name="Sidn", post_processor=post_processor)
    trainer: Any = SimpleNamespace(default_root_dir=folder, global_rank=rank, world_size=processes)
    table = PredictionTable()
    table.on_predict_start(trainer, model)
    for batch in batches:
        table.on_predict_batch_end(trainer, model, batch, batch, 0)
    table.on_predict_end(trainer, model)
    return "".join(path.read_text() for path in folder.iterdir())


def batch(*names: str, scores: list[float], labels: list[bool] | None) -> SimpleNamespace:
    found = None if labels is None else torch.tensor(labels)
    return SimpleNamespace(image_path=[*names], pred_score=torch.tensor(scores), pred_label=found)


def test_the_table_has_each_image_of_all_batches_in_order(tmp_path: Path) -> None:
    batches = [
        batch("b.png", "a,1.png", scores=[0.25, 0.75], labels=[False, True]),
        batch("c.png", scores=[0.5], labels=[True]),
    ]
    assert write_table(tmp_path, batches) == 'path,score,pred_label\nb.png,0.25,0\n"a,1.png",0.75,1\nc.png,0.5,1\n'
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize("labels", [None, [True]])
def test_labels_are_empty_without_a_threshold(tmp_path: Path, labels: list[bool] | None) -> None:
    batches = [batch("a.png", scores=[17.5], labels=labels)]
    assert write_table(tmp_path, batches, threshold=float("nan")) == "path,score,pred_label\na.png,17.5,\n"


def test_each_process_writes_a_file_of_its_own(tmp_path: Path) -> None:
    write_table(tmp_path, [batch("a.png", scores=[0.1], labels=None)], rank=1, processes=2)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions-1.csv"]


def test_no_table_is_written_without_images(tmp_path: Path) -> None:
    assert write_table(tmp_path, [SimpleNamespace(image_path=None, pred_score=torch.ones(1))]) == ""
