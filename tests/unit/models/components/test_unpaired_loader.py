"""Training batches of unpaired normal and defective images."""

import pytest
import torch

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.components.unpaired_loader import paired_loader
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data


@pytest.fixture
def folder(tmp_path):
    """A data module with 6 normal training images and 4 defective images."""
    write_folder_data(tmp_path, image_size=(40, 48), normal=6, normal_test=2, defective=4)
    return folder_datamodule(tmp_path)


def batches(datamodule, batch_size=1, seed=0):
    """Return the batches of an epoch after their transfer to the training device."""
    datamodule.setup()
    loader = paired_loader("Any", datamodule, batch_size, lambda: torch.Generator().manual_seed(seed))
    return [datamodule.on_after_batch_transfer(batch, 0) for batch in loader]


def names(batches):
    return [tuple(batch.image_path) for batch in batches]


def test_an_epoch_has_each_normal_image_once_and_a_defective_one_for_each(folder):
    found = batches(WithDefects(folder, real=2, masks=False), batch_size=4)
    assert [batch.gt_label.tolist() for batch in found] == [[0] * 4 + [1] * 4, [0] * 2 + [1] * 2]
    normal = [path for batch in found for path in batch.image_path[: len(batch) // 2]]
    assert len(normal) == len(set(normal)) == 6
    assert all("defective" in path for batch in found for path in batch.image_path[len(batch) // 2 :])
    assert all(batch.gt_mask is None for batch in found)


def test_pairs_change_with_the_seed_of_the_epoch_and_only_with_it(folder):
    data = WithDefects(folder, real=2, masks=False)
    assert names(batches(data)) == names(batches(data))
    assert names(batches(data)) != names(batches(data, seed=1))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_order_of_an_epoch_is_drawn_with_its_first_batch(folder, workers):
    folder.num_workers = workers
    data, drawn = WithDefects(folder, real=2, masks=False), []
    data.setup()
    loader = iter(paired_loader("Any", data, 1, lambda: drawn.append(1) or torch.Generator().manual_seed(0)))
    assert not drawn
    next(loader)
    assert drawn == [1]


@pytest.mark.parametrize("synthetic", ["noise", "procedural"], ids=["on the device", "while reading"])
def test_without_real_defects_each_normal_image_is_paired_with_a_synthetic_one(folder, synthetic):
    found = batches(WithDefects(folder, synthetic=synthetic, masks=False))
    assert [batch.gt_label.tolist() for batch in found] == [[0, 1]] * 6
    assert all(batch.defect_type == ["good", synthetic] for batch in found)


def test_real_and_synthetic_defects_are_drawn_in_the_proportion_of_the_data_module(folder):
    # 6 normal images of which half get a defect are 3 against 3 real ones, so half of 600 draws: 300 +- 3 * 12
    data = WithDefects(folder, real=3, synthetic="noise", masks=False)
    data.setup()
    loaders = (paired_loader("Any", data, 1, lambda s=s: torch.Generator().manual_seed(s)) for s in range(100))
    assert 264 < sum(index >= 9 for loader in loaders for _, index in loader.sampler) < 336


def test_data_without_normal_images_is_refused(folder):
    data = WithDefects(folder, real=2, masks=False)
    data.setup()
    rows = [row for row, label in enumerate(data.train_data.samples.label_index) if label]
    data.train_data.subsample(rows, inplace=True)
    with pytest.raises(ConfigurationError, match="Any needs normal images"):
        paired_loader("Any", data, 1, torch.Generator)
