"""Every data set under every supervision regime: nothing leaks, counts are as asked for, masks fit labels."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName
from layouts import write_crack_forest

from anomalib_defect_plugins.data import CrackForest, TextureDefects, WithDefects
from anomalib_defect_plugins.data.training_set import with_defect_types
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data


def crack_forest(root: Path) -> AnomalibDataModule:
    segmentation = np.ones((40, 48), np.uint8)
    segmentation[10:13, 5:40] = 2
    write_crack_forest(root, segmentation)
    return lambda: CrackForest(root)


def folder(root: Path) -> AnomalibDataModule:
    write_folder_data(root)
    return lambda: folder_datamodule(root)


DATA: dict[str, Callable[[Path], Callable[[], AnomalibDataModule]]] = {
    "TextureDefects": lambda root: lambda: TextureDefects(root, image_size=64),
    "CrackForest": crack_forest,
    "anomalib's Folder": folder,
}

REGIMES: dict[str, dict[str, Any]] = {
    "normal": {},
    "three real": {"real": 3},
    "half of them": {"real": 0.5},
    "all": {"real": "all"},
    "one a type": {"per_type": 1},
    "labels only": {"real": 3, "masks": False},
    "synthetic": {"synthetic": "noise"},
    "real and synthetic": {"real": 3, "synthetic": "procedural", "synthetic_ratio": 0.9},
}


@pytest.fixture(scope="module", params=list(DATA))
def make_base(request, tmp_path_factory) -> Callable[[], AnomalibDataModule]:
    return DATA[request.param](tmp_path_factory.mktemp("data"))


def ready(datamodule: AnomalibDataModule) -> AnomalibDataModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datamodule.prepare_data()
        datamodule.setup()
    return datamodule


def defects(dataset: AnomalibDataset) -> set[str]:
    return set(dataset.samples[dataset.samples.label_index == LabelName.ABNORMAL].image_path)


def available(base: AnomalibDataModule) -> AnomalibDataset:
    published = getattr(base, "train_defects", None)
    return base.test_data if published is None else published


@pytest.mark.parametrize("regime", list(REGIMES))
def test_training_has_the_defects_asked_for_and_shares_none_with_evaluation(make_base, regime):
    arguments = REGIMES[regime]
    base = ready(make_base())
    datamodule = ready(WithDefects(make_base(), seed=1, **arguments))
    chosen = defects(datamodule.train_data)
    table = with_defect_types(available(base).samples)
    table = table[table.label_index == LabelName.ABNORMAL]
    expected = {"all": len(table), 0.5: round(len(table) / 2), 3: 3}.get(arguments.get("real"), 0)
    if "per_type" in arguments:
        kinds = with_defect_types(datamodule.train_data.samples).set_index("image_path").defect_type[list(chosen)]
        assert set("+".join(kinds).split("+")) == set("+".join(table.defect_type).split("+"))
    else:
        assert len(chosen) == expected
    for evaluation in (datamodule.val_data, datamodule.test_data):
        for column in {"image_path", "group"} & set(datamodule.train_data.samples.columns):
            assert not set(datamodule.train_data.samples[column]) & set(evaluation.samples[column])
    assert set(base.train_data.samples.image_path) <= set(datamodule.train_data.samples.image_path)


def test_the_seed_decides_the_split(make_base):
    splits = []
    for seed in (1, 1, 2, 3, 4):
        datamodule = ready(WithDefects(make_base(), real=3, seed=seed))
        splits.append(tuple(sorted(defects(datamodule.train_data))))
    assert splits[0] == splits[1]
    assert len(set(splits)) > 2


@pytest.mark.parametrize("regime", [name for name, arguments in REGIMES.items() if arguments.get("masks", True)])
def test_defective_training_samples_have_a_mask_and_normal_ones_none(make_base, regime):
    base = ready(make_base())
    if "masks" not in REGIMES[regime] and available(base).samples.attrs["task"] == "classification":
        pytest.skip("the data set has no masks")
    datamodule = ready(WithDefects(make_base(), seed=1, **REGIMES[regime]))
    seen = 0
    for batch in datamodule.train_dataloader():
        batch = datamodule.on_after_batch_transfer(batch, 0)
        assert batch.gt_mask.flatten(1).any(1).tolist() == batch.gt_label.bool().tolist()
        assert [kind != "good" for kind in batch.defect_type] == batch.gt_label.bool().tolist()
        seen += sum(kind != "good" for kind in batch.defect_type)
        if seen > 40:
            break
    assert (seen > 0) == bool(REGIMES[regime])
