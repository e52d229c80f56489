"""Every reader of masks uses the same one: data modules, anomalib's Folder, the region of ``synthesize``, the demo."""

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from anomalib.data import AnomalibDataModule, Folder
from datamodules import error_line, set_up
from mask_samples import REFUSED, SAMPLES, SHAPE, drawing, photo

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data import DefectFolder, WithDefects, check_samples
from anomalib_defect_plugins.data.stock_datasets import checked
from anomalib_defect_plugins.demo.services.uploads import read_painted_region
from anomalib_defect_plugins.synthesis.synthesizer import _read_region

ENCODINGS = ("JPEG", "identifier in blue", "black on transparent", "probabilities", "16 bits, white is 0", "turned PNG")
REFUSALS = ("everything", "white ground", "coloured ground", "pages", "identifier in JPEG")


def folder(root: Path) -> DefectFolder:
    return DefectFolder(root, num_workers=0)


def stock_folder(root: Path) -> Folder:
    masks = {"root": root, "normal_dir": "good", "abnormal_dir": "bad", "mask_dir": "masks/bad"}
    return Folder("stock", num_workers=0, val_split_mode="same_as_test", **masks)


def in_test(datamodule: AnomalibDataModule) -> np.ndarray:
    """Return the mask of the defective image in the test split, read as for a model of this package."""
    dataset = checked(set_up(datamodule).test_data)
    check_samples(dataset)
    return next(item.gt_mask.numpy() for item in dataset if item.gt_label)


def in_training(datamodule: AnomalibDataModule) -> np.ndarray:
    """Return the mask of a defective image in the training split."""
    dataset = set_up(WithDefects(datamodule, real=1)).train_data
    check_samples(dataset)
    return next(item.gt_mask.numpy() for item in dataset if item.gt_label)


DATA: dict[str, Callable[[Path], np.ndarray]] = {
    "DefectFolder": lambda root: in_test(folder(root)),
    "DefectFolder in training": lambda root: in_training(folder(root)),
    "Folder": lambda root: in_test(stock_folder(root)),
    "Folder in training": lambda root: in_training(stock_folder(root)),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("good/0.png", "good/1.png", "bad/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo(SHAPE).save(tmp_path / name)
    (tmp_path / "masks/bad").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("reader", DATA)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_data_module_reads_what_is_drawn(root, encoding, reader):
    suffix, write = SAMPLES[encoding]
    write(root / f"masks/bad/2{suffix}", drawing())
    assert np.array_equal(DATA[reader](root), drawing())


@pytest.mark.parametrize("reader", DATA)
@pytest.mark.parametrize("encoding", REFUSALS)
def test_every_data_module_refuses_a_mask_without_meaning(root, encoding, reader):
    suffix, write, line = REFUSED[encoding]
    write(root / f"masks/bad/2{suffix}", drawing())
    message = error_line(lambda: DATA[reader](root), InvalidInputError, root)
    assert f"ROOT/masks/bad/2{suffix}" in message
    assert line in message


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_region_is_what_is_drawn(tmp_path, encoding):
    suffix, write = SAMPLES[encoding]
    write(tmp_path / f"region{suffix}", drawing())
    region = _read_region(tmp_path / f"region{suffix}", SHAPE)
    assert region.shape == (1, 1, *SHAPE)
    assert np.array_equal(region[0, 0].bool().numpy(), drawing())


def test_a_region_may_be_everywhere_but_not_of_several_pages(tmp_path):
    suffix, write, _ = REFUSED["everything"]
    write(tmp_path / f"region{suffix}", drawing())
    assert _read_region(tmp_path / f"region{suffix}", SHAPE).all()
    suffix, write, line = REFUSED["pages"]
    write(tmp_path / f"region{suffix}", drawing())
    with pytest.raises(InvalidInputError, match=f"cannot read region mask .*{line}"):
        _read_region(tmp_path / f"region{suffix}", SHAPE)


@pytest.mark.parametrize("encoding", ["half transparent", "white on transparent", "palette, transparent"])
def test_a_painted_region_is_what_is_opaque(tmp_path, encoding):
    SAMPLES[encoding][1](tmp_path / "painted.png", drawing())
    painted = "data:image/png;base64," + base64.b64encode((tmp_path / "painted.png").read_bytes()).decode()
    region = read_painted_region(painted, SHAPE)
    # The brush paints opaque; less than half is left where a stroke was erased.
    expected = np.zeros(SHAPE, bool) if encoding == "half transparent" else drawing()
    assert np.array_equal(region, expected)
