"""The reference image: how it is selected, errors if it cannot be loaded, and that no other image is opened."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.data.utils import read_image
from PIL import Image

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import TextureDefects
from anomalib_defect_plugins.models.htpgan.reference import load_reference


def load(datamodule, reference, min_side=16) -> str:
    """Load the reference image, and return the last two parts of its path."""
    if not hasattr(datamodule, "train_data"):
        datamodule.setup()
    item = load_reference(datamodule, reference, min_side)
    assert torch.equal(item.image, read_image(item.image_path, as_tensor=True))
    return "/".join(Path(item.image_path).parts[-2:])


@pytest.fixture
def two_folders(root) -> Folder:
    """Return data with normal images of the same names in two folders, and one whose name is a number."""
    shutil.copytree(root / "normal", root / "more")
    (root / "more" / "002.png").rename(root / "more" / "7.png")
    folders = {"normal_dir": ["normal", "more"], "normal_test_dir": "normal_test", "abnormal_dir": "defective"}
    return Folder(name="two", root=root, num_workers=0, **folders)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (0, "normal/000.png"),
        (3, "normal/003.png"),
        ("002.png", "normal/002.png"),
        ("002", "normal/002.png"),
        ("normal/001.png", "normal/001.png"),
        ("normal/001", "normal/001.png"),
        ("1", "normal/001.png"),  # no image is named 1, so it is an index
    ],
)
def test_it_is_selected_by_index_file_name_or_end_of_its_path(datamodule, reference, expected):
    assert load(datamodule, reference) == expected


def test_it_is_selected_by_its_full_path(datamodule, root):
    assert load(datamodule, str(root / "normal" / "002.png")) == "normal/002.png"


def test_indices_follow_the_order_of_the_paths(two_folders):
    names = [load(two_folders, index) for index in range(8)]
    assert names == sorted(names)
    assert len(set(names)) == 8


def test_more_of_the_path_distinguishes_equal_names(two_folders):
    assert load(two_folders, "more/001.png") == "more/001.png"
    assert load(two_folders, "normal/001") == "normal/001.png"


def test_a_numeric_string_is_a_name_before_an_index(two_folders):
    assert load(two_folders, "7") == "more/7.png"
    assert load(two_folders, 7) == "normal/003.png"


def test_an_ambiguous_name_is_rejected(two_folders):
    line = "^reference is '001.png', but 2 of the 8 normal training images of two match it: add more of its path$"
    with pytest.raises(InvalidInputError, match=line):
        load(two_folders, "001.png")


@pytest.mark.parametrize("reference", ["004.png", "002.jpg", "normal_test/000.png", "mal/000.png", ""])
def test_an_unknown_name_is_rejected_with_an_existing_one(datamodule, reference):
    line = (
        f"reference is {reference!r}, but none of the 4 normal training images of generated match it (one is '000.png')"
    )
    with pytest.raises(InvalidInputError, match=f"^{re.escape(line)}$"):
        load(datamodule, reference)


@pytest.mark.parametrize("reference", [4, -1, "4", 201])
def test_an_index_out_of_range_is_rejected_with_the_number_of_images(datamodule, reference):
    line = f"^reference is {reference}, but generated has 4 normal training images"
    with pytest.raises(InvalidInputError, match=line):
        load(datamodule, reference)


def test_training_data_without_a_normal_image_is_rejected(datamodule):
    datamodule.setup()
    samples = datamodule.train_data.samples
    datamodule.train_data.samples = samples.assign(label_index=1)
    with pytest.raises(InvalidInputError, match=r"^the training split of generated has no normal image"):
        load(datamodule, 0)


def test_defective_training_images_are_not_counted(datamodule):
    datamodule.setup()
    samples = datamodule.train_data.samples
    datamodule.train_data.samples = samples.assign(label_index=[1, 0, 1, 0])
    datamodule.train_data.samples.attrs["task"] = "classification"
    assert [load(datamodule, index) for index in (0, 1)] == ["normal/001.png", "normal/003.png"]
    with pytest.raises(InvalidInputError, match="none of the 2 normal training images"):
        load(datamodule, "000.png")


def test_without_a_data_module_the_error_says_what_to_pass():
    with pytest.raises(ConfigurationError, match="pass datamodule="):
        load_reference(None, 0, 16)


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "truncated"])
def test_a_corrupt_reference_is_named(datamodule, root, content):
    path = root / "normal" / "001.png"
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(InvalidInputError, match=r"cannot read reference image .*normal.001\.png .*; replace") as error:
        load(datamodule, 1)
    assert "\n" not in str(error.value)


def test_a_missing_reference_is_named(datamodule, root):
    datamodule.setup()
    (root / "normal" / "001.png").unlink()
    with pytest.raises(MissingDataError, match=r"reference image .*normal.001\.png not found\. Restore it"):
        load(datamodule, 1)


@pytest.mark.parametrize(("size", "fits"), [((16, 60), True), ((60, 16), True), ((15, 60), False), ((60, 15), False)])
def test_a_reference_smaller_than_the_coarsest_scale_is_rejected(datamodule, root, size, fits):
    Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save(root / "normal" / "000.png")
    if fits:
        assert load(datamodule, 0) == "normal/000.png"
    else:
        line = rf"000\.png is {size[0]}x{size[1]}, smaller than the coarsest scale \(16 pixels\): .*--model\.min_size"
        with pytest.raises(InvalidInputError, match=line):
            load(datamodule, 0)


def test_its_file_is_the_only_one_that_is_opened(datamodule, monkeypatch):
    opened = []
    original = Image.open
    monkeypatch.setattr(
        Image, "open", lambda path, *args, **kwargs: (opened.append(path), original(path, *args, **kwargs))[1]
    )
    load(datamodule, 2)
    assert {Path(path).name for path in opened} == {"002.png"}


def test_it_is_found_in_the_embedded_data_set(tmp_path):
    datamodule = TextureDefects(root=tmp_path, image_size=64)
    assert load(datamodule, 39) == "good/039.png"
    assert load(datamodule, "017") == "good/017.png"
    with pytest.raises(InvalidInputError, match="reference is 40, but TextureDefects has 40 normal training images"):
        load(datamodule, 40)
