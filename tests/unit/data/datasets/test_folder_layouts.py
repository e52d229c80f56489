"""A data folder that holds other things too: they are recognised or named, never a defect type or a normal image."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from anomalib import TaskType
from datamodules import error_line, set_up
from dataset_layouts import write_image, write_mask

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.data.datasets.defect_folder import DefectFolder

TYPES = {"good": 4, "scratch": 3, "dent": 2}

Change = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "plates"
    for name, count in TYPES.items():
        for number in range(count):
            write_image(root / name / f"{number}.png")
    return root


def load(root: Path, **arguments: Any) -> DefectFolder:
    return set_up(DefectFolder(root, num_workers=0, **arguments))


def counts(datamodule: DefectFolder) -> dict[str, int]:
    tables = (datamodule.train_data.samples, datamodule.test_data.samples)
    return dict(sum((Counter(table.defect_type) for table in tables), Counter()))


def masks_of(datamodule: DefectFolder) -> list[str]:
    return sorted(
        f"{Path(path).parent.name}/{Path(path).name}" for path in datamodule.test_data.samples.mask_path if path
    )


def masks(root: Path, ending: str = "", beside: str = "") -> None:
    """Write the masks of all defective images to a folder; the names of the files have an ending."""
    for name in ("scratch", "dent"):
        for number in range(TYPES[name]):
            write_mask(root / (beside or name) / f"{number}{ending}.png")


# Folders of systems and programs


OTHERS: dict[str, Change] = {
    "hidden": lambda root: write_image(root / ".cache" / "0.png"),
    "macOS": lambda root: write_image(root / "__MACOSX" / "scratch" / "0.png"),
    "Synology": lambda root: write_image(root / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.jpg"),
    "notebooks": lambda root: write_image(root / ".ipynb_checkpoints" / "0-checkpoint.png"),
    "Windows": lambda root: write_image(root / "$RECYCLE.BIN" / "0.png"),
    "systems in a type": lambda root: write_image(root / "scratch" / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.jpg"),
    "results": lambda root: write_image(root / "results" / "Sidn" / "plates" / "v0" / "images" / "scratch" / "0.png"),
    "empty results": lambda root: (root / "results" / "Sidn" / "plates" / "v0").mkdir(parents=True),
    "results of a run that has begun": lambda root: (root / "mine" / "Sidn" / "v0").mkdir(parents=True),
    "results of another name": lambda root: [
        write_image(root / "mine" / "images" / "0.png"),
        (root / "mine" / "model.ckpt").touch(),
    ],
    "results of a benchmark": lambda root: [
        write_image(root / "bench" / "runs" / "a" / "maps" / "0.png"),
        (root / "bench" / "runs" / "a" / "run.json").touch(),
    ],
    "maps": lambda root: [write_image(root / "maps" / f"{number:08}.png") for number in range(9)],
    "heat maps": lambda root: write_image(root / "Heat_Maps" / "0.png"),
    "annotations as text": lambda root: [(root / "labels").mkdir(), (root / "labels" / "0.txt").touch()],
    "tables": lambda root: (root / "scores.csv").touch(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_systems_and_programs_write_is_no_defect_type(root, name):
    OTHERS[name](root)
    assert counts(load(root)) == TYPES


def test_the_folder_that_a_run_writes_to_is_no_defect_type(root, monkeypatch):
    monkeypatch.chdir(root)
    write_image(root / "mine" / "Sidn" / "v0" / "0.png")
    datamodule = DefectFolder(".", num_workers=0)
    datamodule.trainer = SimpleNamespace(default_root_dir=Path("mine/Sidn/v0"), global_rank=0)  # type: ignore[assignment]
    assert counts(set_up(datamodule)) == TYPES


def test_a_folder_of_results_with_images_is_named_and_can_be_a_type(root, caplog):
    OTHERS["maps"](root)
    load(root)
    assert f"{root}/maps is taken for results; pass --data.defect_dirs if it is a defect type" in caplog.text
    assert counts(load(root, defect_dirs=["maps", "dent"])) == {"good": 4, "maps": 9, "dent": 2}


# Folders of masks


MASK_FOLDERS = ("mask", "Masks", "MASKS", "gt", "GT", "ground_truth", "Ground Truth", "groundtruth", "ground-truth",
                "labels", "label", "Annotations", "defect_masks", "mask_images", "SegmentationClass")  # fmt: skip


@pytest.mark.parametrize("name", MASK_FOLDERS)
def test_a_folder_of_masks_with_a_usual_name_is_used(root, name):
    masks(root / name)
    datamodule = load(root)
    assert counts(datamodule) == TYPES
    assert datamodule.test_data.task == TaskType.SEGMENTATION
    assert masks_of(datamodule) == ["dent/0.png", "dent/1.png", "scratch/0.png", "scratch/1.png", "scratch/2.png"]
    assert counts(load(root, mask_dir=None)) == TYPES


AMBIGUOUS: dict[str, Change] = {
    "photos": lambda root: [write_image(root / "label" / kind / f"{n}.png") for kind in TYPES for n in range(4)],
    "photos of no other image": lambda root: write_image(root / "label" / "77.png"),
    "masks of several types in one folder": lambda root: masks(root / "label", beside="."),
    "masks besides those in masks": lambda root: [masks(root / "label"), masks(root / "masks")],
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_folder_that_may_hold_masks_or_a_type_is_named_with_both_options(root, name):
    AMBIGUOUS[name](root)
    message = error_line(lambda: load(root), InvalidInputError, root)
    assert message.startswith("the folder ROOT/label may hold masks or images of a defect type; ")
    assert "--data.mask_dir label, or list the defect types with --data.defect_dirs" in message
    assert counts(load(root, defect_dirs=["dent", "scratch"], mask_dir=None)) == TYPES


def test_two_folders_that_may_hold_masks_are_not_chosen_from(root):
    for name in ("gt", "mask"):
        masks(root / name)
    assert "the folder ROOT/gt may hold masks" in error_line(lambda: load(root), InvalidInputError, root)
    assert load(root, mask_dir="gt", defect_dirs=["scratch", "dent"]).test_data.task == TaskType.SEGMENTATION


def test_a_type_may_have_the_name_of_masks(root):
    (root / "dent").rename(root / "label")
    expected = {"good": 4, "scratch": 3, "label": 2}
    assert counts(load(root, defect_dirs=["scratch", "label"])) == expected
    # With masks of that type, there is no doubt.
    masks(root / "masks")
    (root / "masks" / "dent").rename(root / "masks" / "label")
    assert counts(load(root)) == expected


def test_masks_in_a_subfolder_of_their_images_are_named(root):
    write_mask(root / "scratch" / "gt" / "0.png")
    message = error_line(lambda: load(root), InvalidInputError, root)
    assert message == "image ROOT/scratch/gt/0.png is in a subfolder, which is not read; move it to ROOT/masks/scratch"


# Masks beside their images


WITH_SEPARATOR = ("_GT", "_gt", "_mask", "-mask", "_Masks", "_label", ".label", "_ground_truth", " seg", "_lbl", "_m")
ENDINGS = (*WITH_SEPARATOR, "mask", " (mask)", "m")


@pytest.mark.parametrize("ending", ENDINGS)
def test_masks_beside_their_images_are_used(root, ending):
    masks(root, ending)
    for number in range(TYPES["good"]):
        write_mask(root / "good" / f"{number}{ending}.png", value=0)
    datamodule = load(root)
    assert counts(datamodule) == TYPES
    assert datamodule.test_data.task == TaskType.SEGMENTATION
    assert masks_of(datamodule)[0] == f"dent/0{ending}.png"
    assert sorted(int(item.gt_mask.sum()) for item in datamodule.test_data)[-5:] == [6] * 5
    without = load(root, mask_dir=None)
    assert (counts(without), without.test_data.task) == (TYPES, TaskType.CLASSIFICATION)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_endings_are_known_in_the_folder_of_masks(root, ending):
    masks(root / "masks", ending)
    assert len(masks_of(load(root))) == 5


def test_words_for_masks_may_come_first(root):
    for name in ("scratch", "dent"):
        for number in range(TYPES[name]):
            write_mask(root / "masks" / name / f"GT-{number}.png")
    assert len(masks_of(load(root))) == 5


BESIDE: dict[str, tuple[Change, type[Exception], str]] = {
    "a normal image with a defect": (
        lambda root: write_mask(root / "good" / "0_GT.png"),
        InvalidInputError,
        "mask ROOT/good/0_GT.png marks a defect of a normal image; move the image to the folder of a defect type",
    ),
    "two masks": (
        lambda root: [write_mask(root / "dent" / "0_GT.png"), write_mask(root / "dent" / "0_mask.png")],
        InvalidInputError,
        "the masks ROOT/dent/0_GT.png and ROOT/dent/0_mask.png belong to one image; remove one",
    ),
    "the same stems": (
        lambda root: [write_mask(root / "dent" / f"{number}.bmp") for number in range(2)],
        InvalidInputError,
        "ROOT/dent/0.bmp and ROOT/dent/0.png have the same name, and may be an image and its mask; move the masks",
    ),
    "one of the same stem": (
        lambda root: write_mask(root / "scratch" / "1.tif"),
        InvalidInputError,
        "ROOT/scratch/1.png and ROOT/scratch/1.tif have the same name, and may be an image and its mask; move the",
    ),
    "a mask of no image": (
        lambda root: [masks(root, "_GT"), write_mask(root / "dent" / "7_GT.png")],
        InvalidInputError,
        "ROOT/dent/7_GT.png has the name of a mask, and belongs to no image; rename or remove it",
    ),
    "in both places": (
        lambda root: [masks(root, "_GT"), masks(root / "masks")],
        InvalidInputError,
        "image ROOT/dent/0_GT.png has the name of a mask; move it to ROOT/masks/dent if it is one, or else rename it",
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_masks_beside_images_that_are_not_clear_are_named(root, name):
    change, error, line = BESIDE[name]
    change(root)
    assert line in error_line(lambda: load(root), error, root)


def test_an_image_without_a_partner_may_end_like_a_mask(root):
    write_image(root / "good" / "back_label.png")
    assert counts(load(root))["good"] == 5


def test_defects_with_masks_beside_them_are_trained_on(root):
    masks(root, "_GT")
    datamodule = set_up(WithDefects(DefectFolder(root, num_workers=0), real="all"))
    assert sum(int(item.gt_mask.sum()) for item in datamodule.train_data) == 5 * 6
