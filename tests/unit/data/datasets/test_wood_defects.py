"""WOOD: a documented layout that is read like user data, and errors for missing folders."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datamodules import error_line, set_up
from dataset_layouts import write_image, write_mask, write_wood

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import check_samples
from anomalib_defect_plugins.data.datasets.wood_defects import WoodDefects
from anomalib_defect_plugins.testing import DataModuleContract


class TestContract(DataModuleContract):
    def config(self, root: Path) -> dict[str, Any]:
        if not any(root.iterdir()):
            write_wood(root)
        class_path = "anomalib_defect_plugins.data.datasets.wood_defects.WoodDefects"
        return {"class_path": class_path, "init_args": {"root": str(root), "num_workers": 0}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_wood(tmp_path / "WOOD")
    return tmp_path / "WOOD"


def load(root: Path, **arguments: Any) -> WoodDefects:
    return set_up(WoodDefects(root, num_workers=0, **arguments))


def test_sound_wood_is_for_training_and_defects_with_their_labels_for_testing(root: Path) -> None:
    datamodule = load(root)
    assert Counter(datamodule.train_data.samples.defect_type) == {"good": 4}
    assert Counter(datamodule.test_data.samples.defect_type) == {"good": 1, "defect": 3}
    labels = [Path(path).name for path in datamodule.test_data.samples.mask_path if path]
    assert labels == ["5.png", "6.png", "7.png"]
    assert datamodule.name == "WoodDefects"


@pytest.mark.parametrize("value", [1, 128, 255])
def test_every_value_above_0_in_a_label_is_defective(root: Path, value: int) -> None:
    write_mask(root / "labels" / "5.png", value=value)
    check_samples(load(root).test_data)
    assert load(root).test_data[0].gt_mask.sum() == 6


@pytest.mark.parametrize("name", ["", "normal", "defect", "labels"])
def test_a_missing_folder_is_named_with_the_layout_and_the_source(root: Path, name: str) -> None:
    for path in sorted((root / name).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (root / name).rmdir()
    message = error_line(lambda: load(root), MissingDataError, root)
    assert f"{Path('ROOT') / name} does not exist; root must contain normal, defect and labels (a label of" in message
    assert "http://www.ee.oulu.fi/~olli/Projects/Lumber.Grading.html" in message


def test_an_image_without_label_has_no_mask(root: Path) -> None:
    write_image(root / "defect" / "9.png")
    masks = {Path(item.image_path).name: item.gt_mask for item in load(root).test_data}
    assert masks["9.png"] is None
    assert masks["5.jpg"].any()


def test_a_label_without_image_is_named(root: Path) -> None:
    write_mask(root / "labels" / "0.png")
    with pytest.raises(InvalidInputError, match=r"mask .*labels/0\.png belongs to no image of .*defect"):
        load(root)
