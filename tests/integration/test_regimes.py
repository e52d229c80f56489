"""Every data set under every supervision regime: no split leaks, numbers are as given, masks agree with labels."""

import warnings
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName
from datamodules import set_up
from dataset_layouts import (
    write_codebrim,
    write_crack_forest,
    write_dagm2007,
    write_defect_folder,
    write_kolektor_sdd,
    write_magnetic_tile,
    write_wood,
)
from torchvision.transforms.v2 import Resize

from anomalib_defect_plugins.data import (
    Codebrim,
    CrackForest,
    Dagm2007,
    DefectFolder,
    KolektorSdd,
    MagneticTile,
    TextureDefects,
    WithDefects,
    WoodDefects,
)
from anomalib_defect_plugins.data.training_set import published_defects, with_defect_types
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data

MakeBase = Callable[[], AnomalibDataModule]


def crack_forest(root: Path) -> MakeBase:
    segmentation = np.ones((40, 48), np.uint8)
    segmentation[10:13, 5:40] = 2
    write_crack_forest(root, segmentation)
    return lambda: CrackForest(root)


def folder(root: Path) -> MakeBase:
    write_folder_data(root)
    return lambda: folder_datamodule(root)


def kolektor_sdd(root: Path) -> MakeBase:
    write_kolektor_sdd(root)
    return lambda: KolektorSdd(root, image_size=(48, 32), num_workers=0)


def magnetic_tile(root: Path) -> MakeBase:
    write_magnetic_tile(root, shared=3)
    return lambda: MagneticTile(root, num_workers=0, augmentations=LARGER)


def dagm2007(root: Path) -> MakeBase:
    write_dagm2007(root, 6, {"Train": (492, 83), "Test": (508, 67)})
    return lambda: Dagm2007(root, 6, num_workers=0, augmentations=LARGER)


def codebrim(root: Path) -> MakeBase:
    kinds = [(), ("Crack",), ("Spallation", "Crack"), ("Efflorescence",)]
    crops = {
        (split, 10 * place + photo, crop): kinds[(photo + crop) % 4]
        for place, split in enumerate(("train", "val", "test"))
        for photo in range(5)
        for crop in range(4)
    }
    write_codebrim(root, crops)
    return lambda: Codebrim(root, num_workers=0, augmentations=LARGER)


def wood_defects(root: Path) -> MakeBase:
    write_wood(root)
    return lambda: WoodDefects(root, num_workers=0, augmentations=LARGER)


def defect_folder(root: Path) -> MakeBase:
    write_defect_folder(root)
    return lambda: DefectFolder(root, num_workers=0, augmentations=LARGER)


LARGER = Resize((48, 64))
"""Synthetic defects need images of at least 32 pixels a side."""

DATA: dict[str, Callable[[Path], MakeBase]] = {
    "TextureDefects": lambda root: lambda: TextureDefects(root, image_size=64),
    "CrackForest": crack_forest,
    "KolektorSdd": kolektor_sdd,
    "MagneticTile": magnetic_tile,
    "Dagm2007": dagm2007,
    "Codebrim": codebrim,
    "WoodDefects": wood_defects,
    "DefectFolder": defect_folder,
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


GENERATORS = {"noise", "procedural"}


@pytest.fixture(scope="module", params=list(DATA))
def make_base(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], AnomalibDataModule]:
    return DATA[request.param](tmp_path_factory.mktemp("data"))


def ready(datamodule: AnomalibDataModule) -> AnomalibDataModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return set_up(datamodule)


def defects(dataset: AnomalibDataset) -> set[str]:
    return set(dataset.samples[dataset.samples.label_index == LabelName.ABNORMAL].image_path)


def available(base: AnomalibDataModule) -> AnomalibDataset:
    published = published_defects(base)
    return base.test_data if published is None else published


@cache
def ready_base(make_base: MakeBase) -> AnomalibDataModule:
    return ready(make_base())


@cache
def wrap(make_base: MakeBase, regime: str, seed: int = 1) -> WithDefects:
    arguments = dict(REGIMES[regime])
    if available(ready_base(make_base)).task == "classification" and set(arguments) & {"real", "per_type"}:
        arguments["masks"] = False  # the data set has none
    return ready(WithDefects(make_base(), seed=seed, **arguments))


@pytest.mark.parametrize("regime", list(REGIMES))
def test_training_has_the_given_defects_and_shares_none_with_evaluation(make_base: MakeBase, regime: str) -> None:
    arguments = REGIMES[regime]
    base, datamodule = ready_base(make_base), wrap(make_base, regime)
    chosen = defects(datamodule.train_data)
    table = with_defect_types(available(base).samples)
    table = table[table.label_index == LabelName.ABNORMAL]
    if arguments.get("masks", True) and "marked" in table:
        table = table[table.marked]
    if "per_type" in arguments:
        kinds = with_defect_types(datamodule.train_data.samples).set_index("image_path").defect_type[list(chosen)]
        assert set("+".join(kinds).split("+")) == set("+".join(table.defect_type).split("+"))
    else:
        expected = {"all": len(table), 0.5: round(len(table) / 2), 3: 3}
        assert len(chosen) == expected.get(arguments.get("real"), 0)
    train = datamodule.train_data.samples
    for evaluation in (datamodule.val_data, datamodule.test_data):
        for column in {"image_path", "group"} & set(train.columns):
            assert not set(train[column]) & set(evaluation.samples[column])
    assert set(base.train_data.samples.image_path) <= set(train.image_path)


def test_the_split_depends_on_the_seed(make_base: MakeBase) -> None:
    again = wrap.__wrapped__(make_base, "three real", 1)
    splits = [tuple(sorted(defects(wrap(make_base, "three real", seed).train_data))) for seed in (1, 2, 3, 4)]
    assert splits[0] == tuple(sorted(defects(again.train_data)))
    assert len(set(splits)) > 2 or len(splits[0]) == len(defects(available(ready_base(make_base))))


@pytest.mark.parametrize("regime", [name for name, arguments in REGIMES.items() if arguments.get("masks", True)])
def test_masks_of_training_samples_agree_with_their_labels(make_base: MakeBase, regime: str) -> None:
    datamodule = wrap(make_base, regime)
    defective = defects(datamodule.train_data)
    if not datamodule.masks:
        pytest.skip("the data set has no masks")
    table = datamodule.train_data.samples
    normal = np.flatnonzero(table.label_index == LabelName.NORMAL)[:20]
    for row in [*np.flatnonzero(table.label_index == LabelName.ABNORMAL), *normal]:
        item = datamodule.train_data[int(row)]
        assert bool(item.gt_mask.any()) == bool(item.gt_label) == (item.defect_type != "good")
        assert bool(item.gt_label) == (item.image_path in defective)


@pytest.mark.parametrize("regime", [name for name, arguments in REGIMES.items() if "synthetic" in arguments])
def test_synthetic_defects_have_masks_and_are_drawn_on_normal_images(make_base: MakeBase, regime: str) -> None:
    datamodule = wrap(make_base, regime)
    real, drawn = defects(datamodule.train_data), set()
    for batch in islice(datamodule.train_dataloader(), 3):
        batch = datamodule.on_after_batch_transfer(batch, 0)
        if datamodule.masks:
            assert batch.gt_mask.flatten(1).any(1).tolist() == batch.gt_label.bool().tolist()
        assert [kind != "good" for kind in batch.defect_type] == batch.gt_label.bool().tolist()
        drawn |= {path for path, kind in zip(batch.image_path, batch.defect_type, strict=True) if kind in GENERATORS}
    assert drawn
    assert not drawn & real
