"""Batches of images of different sizes, and the arguments of data loaders."""

import pickle

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch, ImageItem
from dataset_layouts import write_defect_folder
from lightning.fabric.utilities import move_data_to_device
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import CenterCrop, Compose, Grayscale, InterpolationMode, Normalize, Resize
from torchvision.tv_tensors import Image, Mask

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.data import DefectFolder, WithDefects
from anomalib_defect_plugins.data.dataclasses import DefectBatch, DefectItem
from anomalib_defect_plugins.data.loading import (
    check_loader_arguments,
    check_one_size,
    collate_images,
    default_workers,
    keep_sizes,
)
from anomalib_defect_plugins.data.training_set import draw_missing_defects
from anomalib_defect_plugins.generators import NoiseDefects
from anomalib_defect_plugins.plugins import Kind, registered

SIZES = ((40, 40), (90, 16), (33, 57))
"""Heights and widths."""

BICUBIC = InterpolationMode.BICUBIC

RESIZES = {
    "bicubic": Resize((32, 24), interpolation=BICUBIC, antialias=True),
    "bilinear": Resize((32, 24), antialias=True),
    "without antialiasing": Resize((32, 24), antialias=False),
    "enlarging": Resize((128, 120), antialias=True),
    "after other steps": Compose([Grayscale(3), Normalize([0.5] * 3, [0.2] * 3), Resize((32, 24))]),
    "nested": Compose([Compose([Resize((32, 24))]), Grayscale(3)]),
    "shorter side, then crop": Compose([Resize(24), CenterCrop(20)]),
    "crop, then resize": Compose([CenterCrop(14), Resize((32, 24))]),
}


def item(height: int, width: int) -> DefectItem:
    """Return a defective sample with a thin line as its mask."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[:, width // 2] = True
    image, label = torch.rand(3, height, width), torch.tensor(1)
    return DefectItem(image=Image(image), gt_mask=Mask(mask), gt_label=label, image_path=f"{height}", defect_type="a")


def mixed() -> list[DefectItem]:
    return [item(*size) for size in SIZES]


def test_images_of_one_size_are_collated_as_in_anomalib():
    items = [ImageItem(image=torch.rand(3, 9, 8), gt_mask=torch.rand(9, 8) > 0.5) for _ in range(3)]
    expected = ImageBatch.collate(items)
    for collate in (collate_images, DefectBatch.collate):
        batch = collate(items)
        assert torch.equal(batch.image, expected.image)
        assert torch.equal(batch.gt_mask, expected.gt_mask)
    assert type(collate_images(items)) is ImageBatch


def test_images_of_different_sizes_are_a_list_beside_their_labels():
    items = mixed()
    batch = pickle.loads(pickle.dumps(DefectBatch.collate(items)))  # as sent by a worker process
    assert [(one.shape, mask.shape) for one, mask in zip(batch.image, batch.gt_mask, strict=True)] == [
        ((3, *size), size) for size in SIZES
    ]
    assert all(torch.equal(one, each.image) for one, each in zip(batch.image, items, strict=True))
    assert batch.gt_label.tolist() == [1, 1, 1]
    assert (batch.image_path, batch.defect_type) == (["40", "90", "33"], ["a"] * 3)
    assert len(batch) == 3


def test_collating_leaves_the_samples_unchanged():
    items = mixed()
    DefectBatch.collate(items)
    assert [tuple(each.image.shape[1:]) for each in items] == list(SIZES)


@pytest.mark.parametrize("with_masks", [True, False])
def test_samples_of_anomalib_collate_with_and_without_masks(with_masks):
    items = [ImageItem(image=torch.rand(3, *size), gt_mask=torch.zeros(size) if with_masks else None) for size in SIZES]
    batch = collate_images(items)
    assert isinstance(batch.image, list)
    assert isinstance(batch.gt_mask, list) == with_masks


def test_all_images_of_a_list_go_to_the_device():
    batch = move_data_to_device(DefectBatch.collate(mixed()), "meta")
    assert {one.device.type for one in (*batch.image, *batch.gt_mask)} == {"meta"}
    assert all(isinstance(one, Image) for one in batch.image)


@pytest.mark.parametrize("name", RESIZES)
def test_each_image_and_mask_is_resized_as_it_would_be_alone(name):
    transform, items = RESIZES[name], mixed()
    batch = DefectBatch.collate(items)
    batch.image, batch.gt_mask = transform(batch.image, batch.gt_mask)
    for row, each in enumerate(items):
        alone = DefectBatch.collate([each])
        alone.image, alone.gt_mask = transform(alone.image, alone.gt_mask)
        assert torch.allclose(batch.image[row], alone.image[0], atol=1e-6)
        assert torch.equal(batch.gt_mask[row], alone.gt_mask[0])
    assert batch.gt_mask.dtype == torch.bool
    assert isinstance(batch.image, Image)


def test_images_that_still_differ_in_size_are_an_error_that_says_what_to_do():
    with pytest.raises(ConfigurationError, match=r"images of 16x90 and 40x40 pixels.*of Any .*eval_batch_size to 1"):
        check_one_size(DefectBatch.collate(mixed()).image, "Any")
    check_one_size(torch.zeros(2, 3, 8, 8), "Any")
    check_one_size(None, "Any")


def test_quantisation_with_images_of_different_sizes_is_an_error_that_says_what_to_do():
    batch = DefectBatch.collate(mixed())
    for key in ("image", "gt_mask"):
        with pytest.raises(ConfigurationError, match=r"images of 16x90 and 40x40 pixels.*: set eval_batch_size to 1"):
            batch[key]
    assert torch.equal(batch["gt_label"], batch.gt_label)
    assert DefectBatch.collate(mixed()[:1])["image"].shape == (1, 3, 40, 40)


def test_only_the_collate_function_of_anomalib_is_replaced():
    for collate in (DefectBatch.collate, torch.utils.data.default_collate):
        assert keep_sizes(collate) == collate
    assert keep_sizes(ImageBatch.collate) is collate_images
    assert keep_sizes(collate_images) is collate_images


def test_synthetic_defects_are_drawn_on_images_of_different_sizes():
    items = mixed()
    for each, drawn in zip(items, (True, False, True), strict=True):
        each.needs_synthetic_defect, each.gt_label, each.defect_type = drawn, torch.tensor(0), "good"
        each.gt_mask = torch.zeros_like(each.gt_mask)
    batch = DefectBatch.collate(items)
    draw_missing_defects(batch, NoiseDefects())
    assert [bool(mask.any()) for mask in batch.gt_mask] == [True, False, True]
    assert batch.gt_label.tolist() == [1, 0, 1]
    assert batch.defect_type == ["noise", "good", "noise"]
    for one, mask, each in zip(batch.image, batch.gt_mask, items, strict=True):
        assert torch.equal((one != each.image).any(0) | mask, mask)


# Data modules


def build(name: str, root, **arguments):
    """Return a data module of ours on the files of ``write_defect_folder``, or one of anomalib."""
    settings = {"num_workers": 0, "train_batch_size": 2, "eval_batch_size": 2} | arguments
    stock = {"name": "any", "root": root, "normal_dir": "good", "abnormal_dir": ["crack", "dent"]}
    return {
        "DefectFolder": lambda: DefectFolder(root=root, **settings),
        "WithDefects": lambda: WithDefects(DefectFolder(root=root, **settings), real=2, synthetic="procedural"),
        "WithDefects of Folder": lambda: WithDefects(Folder(**stock, **settings), real=2, masks=False),
        "Folder": lambda: Folder(**stock, **settings),
    }[name]()


class Trained(NoiseDefects):
    """Stands for a generator with a network, which is not to be copied into workers."""

    def __reduce__(self):
        raise AssertionError


NAMES = sorted(set(registered(Kind.GENERATOR)) - {"defectgan"})
"""Generators that need no file."""

OURS = ("DefectFolder", "WithDefects", "WithDefects of Folder")


@pytest.fixture
def root(tmp_path):
    write_defect_folder(tmp_path)
    return tmp_path


@pytest.mark.parametrize("stage", ["train", "val", "test", "predict"])
@pytest.mark.parametrize("name", OURS)
def test_our_data_modules_keep_the_sizes_of_images(root, name, stage):
    datamodule = build(name, root)
    datamodule.setup()
    loader = getattr(datamodule, f"{stage}_dataloader")()
    items = [ImageItem(image=torch.rand(3, *size), gt_label=torch.tensor(0)) for size in SIZES]
    assert isinstance(loader.collate_fn(items).image, list)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("generator", [*map(registered(Kind.GENERATOR).get, NAMES), Trained])
def test_what_a_loader_sends_to_spawned_workers_can_be_pickled(root, name, generator):
    datamodule = build(name, root)
    datamodule.synthetic = generator()  # only WithDefects reads it
    datamodule.setup()
    for stage in ("train", "val", "test", "predict"):
        loader: DataLoader = getattr(datamodule, f"{stage}_dataloader")()
        sent = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn, loader.worker_init_fn)))
        assert len(sent[0]) == len(loader.dataset)


INVALID = [
    ("train_batch_size", 0, "train_batch_size is 0; it must be a whole number of at least 1"),
    ("train_batch_size", -4, "train_batch_size is -4; it must be a whole number of at least 1"),
    ("eval_batch_size", -1, "eval_batch_size is -1; it must be a whole number of at least 1"),
    ("eval_batch_size", 2.5, "eval_batch_size is 2.5; it must be a whole number of at least 1"),
    ("train_batch_size", None, "train_batch_size is None; it must be a whole number of at least 1"),
    ("train_batch_size", True, "train_batch_size is True; it must be a whole number of at least 1"),
    ("num_workers", -1, "num_workers is -1; it must be a whole number of at least 0"),
    ("num_workers", "two", "num_workers is 'two'; it must be a whole number of at least 0"),
]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(("argument", "value", "message"), INVALID)
def test_our_data_modules_refuse_invalid_loader_arguments(root, name, argument, value, message):
    with pytest.raises(InvalidInputError) as raised:
        build(name, root, **{argument: value})
    assert str(raised.value) == message


@pytest.mark.parametrize(("argument", "value", "message"), INVALID)
def test_loader_arguments_of_any_data_module_can_be_checked(root, argument, value, message):
    with pytest.raises(InvalidInputError) as raised:
        check_loader_arguments(build("Folder", root, **{argument: value}))
    assert str(raised.value) == message


def test_integers_of_numpy_are_whole_numbers(root):
    check_loader_arguments(build("Folder", root, train_batch_size=np.int64(3)))


@pytest.mark.parametrize(
    ("methods", "cores", "workers"),
    [
        (["fork", "spawn"], 1, 0),
        (["fork", "spawn"], 2, 0),
        (["fork", "spawn"], 6, 4),
        (["fork", "spawn"], 64, 8),
        (["spawn"], 16, 0),
        (["fork", "spawn"], None, 0),
    ],
)
def test_loading_processes_leave_two_cores_to_training(monkeypatch, methods, cores, workers):
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: methods)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert default_workers() == workers


def test_number_of_loading_processes_is_that_of_the_machine_unless_it_is_chosen(root):
    assert build("DefectFolder", root, num_workers=None).num_workers == default_workers()
    assert build("DefectFolder", root, num_workers=3).num_workers == 3
