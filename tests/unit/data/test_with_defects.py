"""Real and synthetic defects are added to the training split of any data module and removed from the other splits."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datamodules import error_line, set_up
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from object_data import OBJECTS, SIDES, Objects, Published, Square, SquareByWorkers, groups, objects, paths
from omegaconf import DictConfig
from torch import Tensor

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import TextureDefects, WithDefects
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data

QUIET: Any = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


# Real defects


@pytest.mark.parametrize(("real", "count"), [(0, 0), (1, 1), (7, 7), (0.25, 4), (1.0, 16), ("all", 16)])
def test_the_training_split_has_the_given_number_of_defective_images(tmp_path: Path, real: Any, count: int) -> None:
    assert len(paths(objects(tmp_path, real=real).train_data, 1)) == count


def test_no_object_is_both_in_training_and_in_another_split(tmp_path: Path) -> None:
    plain = set_up(Objects(tmp_path))
    for seed in range(5):
        datamodule = objects(tmp_path, real=5, seed=seed)
        for other in (datamodule.test_data, datamodule.val_data):
            assert not groups(datamodule.train_data) & groups(other)
        # Five images belong to three objects, whose normal images are moved to training.
        assert len(paths(datamodule.train_data, 0) - paths(plain.train_data)) == 3 * (SIDES - 2)
        assert len(datamodule.test_data) == (OBJECTS - 3) * SIDES


@pytest.mark.parametrize("mode", ["same_as_test", "from_test", "from_train", "none", "synthetic"])
def test_every_validation_split_is_separate(tmp_path: Path, mode: str) -> None:
    datamodule = set_up(WithDefects(Objects(tmp_path, val_split_mode=mode), real=4))
    assert not groups(datamodule.train_data) & groups(datamodule.test_data)
    if mode not in {"none", "synthetic"}:
        assert not groups(datamodule.train_data) & groups(datamodule.val_data)
        assert mode == "same_as_test" or not paths(datamodule.val_data) & paths(datamodule.test_data)


def test_the_split_depends_on_the_seed_and_a_larger_number_extends_it(tmp_path: Path) -> None:
    first, again = objects(tmp_path, real=6, seed=3), objects(tmp_path, real=6, seed=3)
    assert first.train_data.samples.equals(again.train_data.samples)
    assert first.test_data.samples.equals(again.test_data.samples)
    assert paths(first.train_data, 1) != paths(objects(tmp_path, real=6, seed=4).train_data, 1)
    assert paths(first.train_data, 1) < paths(objects(tmp_path, real=9, seed=3).train_data, 1)


@pytest.mark.parametrize("per_object", [None, 1])
def test_runs_on_parts_of_the_held_out_defects_are_tested_on_the_same_images(
    tmp_path: Path, per_object: int | None
) -> None:
    amounts = (0, 1, 3, 6)
    runs = [objects(tmp_path, real=real, held_out=6, per_object=per_object, seed=2) for real in amounts]
    trained = [paths(run.train_data, 1) for run in runs]
    assert [len(images) for images in trained] == list(amounts)
    assert all(fewer < more for fewer, more in pairwise(trained))
    assert trained[2] == paths(objects(tmp_path, real=3, per_object=per_object, seed=2).train_data, 1)
    alone = objects(tmp_path, real=6, per_object=per_object, seed=2)
    for run in runs:
        assert paths(run.test_data) == paths(alone.test_data)
        assert paths(run.val_data) == paths(alone.val_data)
        assert paths(run.train_data, 0) == paths(alone.train_data, 0)


def test_held_out_defects_have_no_effect_where_training_defects_are_published(tmp_path: Path) -> None:
    runs = [set_up(WithDefects(Published(tmp_path), real=2, held_out=number)) for number in (None, 3, 40)]
    for run in runs:
        assert paths(run.test_data) == paths(runs[0].test_data)
        assert paths(run.train_data) == paths(runs[0].train_data)


@pytest.mark.parametrize(("per_object", "count"), [(1, 6), (2, 3), (9, 3)])
def test_no_object_has_more_training_defects_than_the_maximum(tmp_path: Path, per_object: int, count: int) -> None:
    datamodule = objects(tmp_path, real=6, per_object=per_object)
    table = datamodule.train_data.samples
    assert table[table.label_index == 1].group.nunique() == count
    assert not groups(datamodule.train_data) & groups(datamodule.test_data)
    assert paths(datamodule.train_data, 1) < paths(objects(tmp_path, real=8, per_object=per_object).train_data, 1)


def test_every_type_has_the_given_number_of_images(tmp_path: Path) -> None:
    kinds = objects(tmp_path, per_type=3).train_data.samples.defect_type
    # The three images with a dent have a scratch too, so no more scratches are needed.
    assert kinds.value_counts().to_dict() == {"good": 24, "scratch+dent": 3}
    texture = set_up(WithDefects(TextureDefects(tmp_path / "texture", image_size=64), per_type=2))
    assert set(texture.train_data.samples.defect_type.value_counts()[1:]) == {2}
    assert len(texture.train_data) == 40 + 6 * 2


def test_published_training_defects_are_used_and_the_test_split_is_kept(tmp_path: Path) -> None:
    datamodule = set_up(WithDefects(Published(tmp_path), real="all"))
    assert groups(datamodule.train_data) == {f"object {number}" for number in (*range(100, 103), *range(200, 204))}
    assert paths(datamodule.test_data) == paths(set_up(Objects(tmp_path)).test_data)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"real": 17}, "real is 17, but the test split of Objects has 16 defective images"),
        ({"real": -1}, "real is -1"),
        ({"real": 1.5}, "real is 1.5: use a number of images, a share"),
        ({"per_type": 9}, "per_type is 9, but the test split of Objects has only 8 images of type 'dent'"),
        ({"per_type": 0}, "per_type is 0"),
        ({"per_type": 1, "real": 2}, "choose one of them"),
        (
            {"real": 9, "per_object": 1},
            "the test split of Objects, 1 of an object, has 8 defective images; choose",
        ),
        ({"real": 2, "per_object": 0}, "per_object is 0; it must be more than 0"),
        ({"split_file": "x.csv", "real": 2}, "leave out real, per_type, per_object and held_out"),
        ({"split_file": "x.csv", "held_out": 2}, "leave out real, per_type, per_object and held_out"),
        ({"held_out": 17}, "held_out is 17, but the test split of Objects has 16 defective images"),
        ({"held_out": 2, "real": 3}, "held_out is 2, less than real, 3, which is a part of it; increase it"),
        ({"held_out": 2, "per_type": 1}, "per_type is 1 and held_out is 2: use held_out with real"),
        ({"synthetic_ratio": 0.0}, "synthetic_ratio is 0"),
        ({"synthetic": "glitter"}, "generator synthetic 'glitter' cannot be created: unknown class; choose one"),
    ],
)
def test_invalid_arguments_are_one_line_errors(tmp_path: Path, arguments: dict[str, Any], line: str) -> None:
    assert line in error_line(lambda: objects(tmp_path, **arguments), InvalidInputError, tmp_path)


def test_training_on_all_defects_warns_that_none_is_left_to_test(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    objects(tmp_path, real="all")
    assert "none is left to test" in caplog.text


def test_the_base_may_be_a_mapping_as_in_a_benchmark(tmp_path: Path) -> None:
    spec = {"class_path": "TextureDefects", "init_args": {"root": str(tmp_path), "image_size": 64, "category": "grass"}}
    for base in (spec, DictConfig(spec)):
        datamodule = WithDefects(base, real=2)
        assert (datamodule.base.category, datamodule.category, datamodule.base.image_size) == ("grass", "grass", 64)
    with pytest.raises(InvalidInputError, match="category is 'wool'"):
        WithDefects({"class_path": "TextureDefects", "init_args": {"category": "wool"}})
    with pytest.raises(InvalidInputError, match=r"base 'Nonsense' cannot be created: unknown class.*MVTecAD"):
        WithDefects("Nonsense")


# Identical test splits


REGIMES: tuple[dict[str, Any], ...] = (
    {"train_on_real": False},
    {"train_on_real": False, "synthetic": Square()},
    {"masks": False},
    {"balanced": False},
)
"""Kinds of supervision that a benchmark compares: normal images, synthetic defects, image labels, masks."""


class Unmarked(Objects):
    """Some of its defective images have ``marked`` false."""

    def _setup(self, stage: str | None = None) -> None:
        super()._setup(stage)
        table = self.test_data.samples.copy()
        table["marked"] = ~table.image_path.str.contains(r"/[0-3]-0\.png$")
        self.test_data.samples = table


@pytest.mark.parametrize("amount", [{"real": 4}, {"per_type": 2}])
@pytest.mark.parametrize("kind", [Objects, Unmarked, Published])
def test_every_kind_of_supervision_has_the_same_test_images_and_normal_training_images(
    tmp_path: Path, kind: type[Objects], amount: dict[str, Any]
) -> None:
    def split(regime: dict[str, Any], seed: int) -> WithDefects:
        torch.manual_seed(seed)  # seed of a benchmark, which no split may depend on
        np.random.seed(seed)  # noqa: NPY002
        return set_up(WithDefects(kind(tmp_path, num_workers=0), **amount, **regime))

    first, *others = [split(regime, seed) for seed, regime in enumerate(REGIMES)]
    for name in ("test_data", "val_data"):
        assert all(paths(getattr(other, name)) == paths(getattr(first, name)) for other in others)
    assert all(paths(other.train_data, 0) == paths(first.train_data, 0) for other in others)
    trained = [paths(regime.train_data, 1) for regime in (first, *others)]
    assert trained[:2] == [set(), set()]
    assert trained[2] == trained[3] != set()
    assert not trained[2] & paths(first.test_data)


def test_real_defects_that_are_not_trained_on_are_in_no_split(tmp_path: Path) -> None:
    held, without = objects(tmp_path, real=5, train_on_real=False), objects(tmp_path)
    assert len(paths(without.test_data, 1)) - len(paths(held.test_data, 1)) == 6, "the images of three objects"
    assert not held.train_data.samples.label_index.any()
    assert paths(objects(tmp_path, real=5, seed=1, train_on_real=False).test_data) != paths(held.test_data)


def test_the_split_of_an_earlier_run_can_be_repeated_without_its_defects(tmp_path: Path) -> None:
    datamodule = WithDefects(Objects(tmp_path / "data", num_workers=0), real=5, seed=7)
    Trainer(default_root_dir=tmp_path / "run", max_epochs=1, **QUIET).fit(IdleModel(), datamodule=datamodule)
    again = objects(tmp_path / "data", split_file=tmp_path / "run" / "split.csv", train_on_real=False)
    assert paths(again.train_data) == paths(datamodule.train_data, 0)
    assert paths(again.test_data) == paths(datamodule.test_data)


# Samples and masks


def test_any_data_module_can_be_wrapped(tmp_path: Path) -> None:
    write_folder_data(tmp_path)
    datamodule = set_up(WithDefects(folder_datamodule(tmp_path), real=2, balanced=False))
    assert len(datamodule.train_data) == 8 + 2
    assert len(datamodule.test_data) == 4 + 4 - 2
    batches = list(datamodule.train_dataloader())
    assert sorted(kind for batch in batches for kind in batch.defect_type) == ["abnormal"] * 2 + ["good"] * 8
    for batch in batches:
        assert torch.equal(batch.gt_mask.flatten(1).any(1), batch.gt_label.bool())


def test_without_masks_training_images_have_labels_only(tmp_path: Path) -> None:
    datamodule = objects(tmp_path, real=4, masks=False, synthetic=Square())
    for batch in datamodule.train_dataloader():
        batch = datamodule.on_after_batch_transfer(batch, 0)
        assert batch.gt_mask is None
        assert batch.mask_path is None
        assert len(batch.gt_label) == len(batch.image)
    assert next(iter(datamodule.test_dataloader())).gt_mask is not None


def test_missing_masks_are_an_error_before_training(tmp_path: Path) -> None:
    write_folder_data(tmp_path)
    folder = folder_datamodule(tmp_path)
    folder.mask_dir = None
    with pytest.raises(ConfigurationError, match=r"generated has no mask of .*00\d.png: pass --data.masks false"):
        set_up(WithDefects(folder, real=2))
    assert len(set_up(WithDefects(folder, real=2, masks=False)).train_data) == 10
    # Synthetic defects have masks in any case.
    synthetic = set_up(WithDefects(folder, synthetic=Square(), synthetic_ratio=1.0))
    batch = synthetic.on_after_batch_transfer(next(iter(synthetic.train_dataloader())), 0)
    assert batch.gt_mask.flatten(1).any(1).all()


@pytest.mark.parametrize("arguments", [{}, {"real": 5, "train_on_real": False}, {"real": 1, "balanced": False}])
def test_without_balance_or_defects_an_epoch_has_each_image_once(tmp_path: Path, arguments: dict[str, Any]) -> None:
    datamodule = objects(tmp_path, **arguments)
    drawn = [path for batch in datamodule.train_dataloader() for path in batch.image_path]
    assert sorted(drawn) == sorted(datamodule.train_data.samples.image_path)


def test_training_draws_defective_images_as_often_as_normal_ones(tmp_path: Path) -> None:
    datamodule = objects(tmp_path, real=1)
    assert datamodule.train_data.samples.label_index.mean() < 0.06
    labels = torch.cat([batch.gt_label for _ in range(20) for batch in datamodule.train_dataloader()])
    assert len(labels) == 20 * len(datamodule.train_data)
    assert 0.4 < labels.float().mean() < 0.6


# Synthetic defects


@pytest.mark.parametrize("generator", [Square(), SquareByWorkers()], ids=["batched", "by workers"])
@pytest.mark.parametrize("workers", [0, 2])
def test_normal_training_images_get_different_defects_in_each_epoch(
    tmp_path: Path, generator: DefectGenerator, workers: int
) -> None:
    base = Objects(tmp_path, num_workers=workers, train_batch_size=4)
    datamodule = set_up(WithDefects(base, real=2, balanced=False, synthetic=generator, synthetic_ratio=0.5))

    def epoch() -> tuple[Tensor, list[str]]:
        batches = [datamodule.on_after_batch_transfer(batch, 0) for batch in datamodule.train_dataloader()]
        for batch in batches:
            changed = (batch.image - 99 / 255).abs().amax(1) > 1e-3
            synthetic = torch.tensor([kind == "square" for kind in batch.defect_type])
            assert torch.equal(changed, batch.gt_mask & synthetic[:, None, None])
            assert torch.equal(batch.gt_label.bool(), batch.gt_mask.flatten(1).any(1))
            assert batch.needs_synthetic_defect is None or not batch.needs_synthetic_defect.any()
        order = sorted((path, index) for index, path in enumerate(path for b in batches for path in b.image_path))
        masks = torch.cat([batch.gt_mask for batch in batches])
        return masks[[index for _, index in order]], [kind for batch in batches for kind in batch.defect_type]

    torch.manual_seed(0)
    (first, kinds), (second, _) = epoch(), epoch()
    torch.manual_seed(0)
    (again, _) = epoch()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert 0.2 < kinds.count("square") / len(kinds) < 0.8
    assert sum(kind not in {"square", "good"} for kind in kinds) == 2
    drawn = [mask for mask in first if 0 < mask.sum() < mask.numel()]
    assert len({tuple(mask.nonzero()[0].tolist()) for mask in drawn}) > len(drawn) / 2, "workers draw the same defects"


def test_the_data_sets_themselves_have_no_synthetic_defects(tmp_path: Path) -> None:
    datamodule = objects(tmp_path, synthetic=SquareByWorkers(), synthetic_ratio=1.0)
    for dataset in (datamodule.train_data, datamodule.val_data, datamodule.test_data):
        assert all(len(item.image.unique()) == 1 for item in dataset)


def test_processes_of_a_distributed_training_draw_different_defects(tmp_path: Path) -> None:
    masks = []
    for rank in range(2):
        datamodule = objects(tmp_path, synthetic=Square(), synthetic_ratio=1.0)
        datamodule.trainer = type("TrainerStub", (), {"global_rank": rank, "training": False})()
        torch.manual_seed(0)
        batch = next(iter(datamodule.train_dataloader()))
        masks.append(datamodule.on_after_batch_transfer(batch, 0).gt_mask)
    assert not torch.equal(*masks)


# The split file


class IdleModel(BoringModel):
    def training_step(self, batch: object, batch_idx: int) -> None:
        """Skip the batch."""

    def validation_step(self, batch: object, batch_idx: int) -> None:
        """Skip the batch."""

    def test_step(self, batch: object, batch_idx: int) -> None:
        """Skip the batch."""


def test_the_split_of_a_training_can_be_repeated_on_a_copy_of_the_data(tmp_path: Path) -> None:
    datamodule = WithDefects(Objects(tmp_path / "data", num_workers=0), real=5, seed=7)
    Trainer(default_root_dir=tmp_path / "run", max_epochs=1, **QUIET).fit(IdleModel(), datamodule=datamodule)
    assert not list((tmp_path / "run").glob("*.part"))
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    again = objects(tmp_path / "copy", split_file=tmp_path / "run" / "split.csv", seed=8)
    for name in ("train_data", "val_data", "test_data"):
        mine, theirs = (getattr(module, name) for module in (again, datamodule))
        assert {Path(path).name for path in paths(mine)} == {Path(path).name for path in paths(theirs)}
        assert len(mine) == len(theirs)
        assert len(mine[0].image) == 3


def test_testing_writes_no_split_file(tmp_path: Path) -> None:
    datamodule = WithDefects(Objects(tmp_path / "data", num_workers=0), real=5)
    Trainer(default_root_dir=tmp_path / "run", **QUIET).test(IdleModel(), datamodule=datamodule, verbose=False)
    assert not (tmp_path / "run" / "split.csv").exists()


def test_an_unusable_split_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "split.csv"
    with pytest.raises(MissingDataError, match=r"split file .*split.csv does not exist"):
        objects(tmp_path / "data", split_file=file)
    file.write_text("no,such,columns\n1,2,3\n")
    with pytest.raises(InvalidInputError, match=r"split.csv is not a split file"):
        objects(tmp_path / "data", split_file=file)
    file.write_text("split,image,label,defect_type\ntrain,other/7.png,0,good\n")
    with pytest.raises(MissingDataError, match=r"split.csv names other/7.png, which the data does not have"):
        objects(tmp_path / "data", split_file=file)


def test_the_global_random_state_of_numpy_is_not_changed(tmp_path: Path) -> None:
    np.random.seed(0)  # noqa: NPY002 - the global state is under test
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    objects(tmp_path, real=5, synthetic=Square())
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_as_many_normal_images_as_requested_are_trained_on_the_first_ones_by_path(tmp_path):
    write_folder_data(tmp_path, normal=5)
    data = WithDefects(folder_datamodule(tmp_path), real=2, normal=2)
    data.setup()
    normal = data.train_data.samples[data.train_data.samples.label_index == 0]
    assert [Path(path).name for path in normal.image_path] == ["000.png", "001.png"]
    assert (data.train_data.samples.label_index == 1).sum() == 2
    whole = WithDefects(folder_datamodule(tmp_path), real=2)
    whole.setup()
    assert set(data.test_data.samples.image_path) == set(whole.test_data.samples.image_path)


@pytest.mark.parametrize(
    ("normal", "line"), [(0, "normal is 0; it must be more than 0"), (9, "normal is 9, but the tr")]
)
def test_an_invalid_number_of_normal_images_is_refused(tmp_path, normal, line):
    write_folder_data(tmp_path, normal=5)
    with pytest.raises(InvalidInputError, match=line):
        WithDefects(folder_datamodule(tmp_path), real=2, normal=normal).setup()
