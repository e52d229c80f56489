"""The contract holds a sound model sound and finds what is wrong with a broken one."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from anomalib import LearningType
from anomalib.data import Batch, InferenceBatch
from anomalib.models import AnomalibModule
from PIL import Image
from torch import Tensor, nn

from anomalib_defect_plugins.testing import (
    DataModuleContract,
    ModelContract,
    TrainingContract,
    folder_datamodule,
    write_folder_data,
)


class Net(nn.Module):
    """The smallest network that learns what normal images look like: a convolution that should change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def difference(self, image: Tensor) -> Tensor:
        return (self.conv(image) - image).abs().mean(1, keepdim=True)

    def forward(self, image: Tensor) -> InferenceBatch:
        anomaly_map = self.difference(image)
        return InferenceBatch(pred_score=anomaly_map.amax((1, 2, 3)), anomaly_map=anomaly_map)


class Sound(AnomalibModule):
    """A model as the contract wants it."""

    net = Net
    learning_type = LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, object]:
        return {"num_sanity_val_steps": 0}

    def __init__(self, pre_processor: nn.Module | bool = True) -> None:
        super().__init__(pre_processor=pre_processor)
        self.model = self.net()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.model.difference(batch.image).mean()
        self.check(loss, batch_idx)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def check(self, loss: Tensor, batch_idx: int) -> None:
        if not loss.isfinite():
            msg = f"train_loss is {loss.item()} at step {batch_idx}"
            raise FloatingPointError(msg)

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        return self.test_step(batch, batch_idx)


class NotANumber(Net):
    def difference(self, image: Tensor) -> Tensor:
        return super().difference(image) * (1 if self.training else torch.nan)


class Blind(Net):
    def difference(self, image: Tensor) -> Tensor:
        return super().difference(image) if self.training else super().difference(image[:1] * 0 + 1) + image[:, :1] * 0


class JudgesTheBatch(Net):
    def difference(self, image: Tensor) -> Tensor:
        difference = super().difference(image)
        return difference if self.training else difference / difference.amax()


class WrongShape(Net):
    def forward(self, image: Tensor) -> InferenceBatch:
        result = super().forward(image)
        return result._replace(anomaly_map=result.anomaly_map[..., ::2, ::2])


class KeepsWeightsToItself(Net):
    def __init__(self) -> None:
        super().__init__()
        self.factor = 1 + torch.rand(3, 1, 1)

    def difference(self, image: Tensor) -> Tensor:
        return super().difference(image * self.factor)


class Unseeded(Net):
    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.conv.bias, int.from_bytes(os.urandom(4), "big") / 2**32)


class OtherwiseInTheGraph(Net):
    def forward(self, image: Tensor) -> InferenceBatch:
        return super().forward(image * 1.05 if torch.compiler.is_compiling() else image)


class LogsNothing(Sound):
    def log(self, *args: object, **kwargs: object) -> None:
        """Say nothing of a loss."""


class TrainsOnWithoutANumber(Sound):
    def check(self, loss: Tensor, batch_idx: int) -> None:
        """Look away."""


class StopsWithoutAReason(Sound):
    def check(self, loss: Tensor, batch_idx: int) -> None:
        if not loss.isfinite():
            msg = f"something went wrong at step {batch_idx}"
            raise FloatingPointError(msg)


class ForgetsItsPlace(Sound):
    """Its learning rate falls with the steps since it was made, of which no checkpoint knows."""

    steps = 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.steps += 1
        return super().training_step(batch, batch_idx) / self.steps**2


class SmallContract(TrainingContract):
    """Some model's contract."""

    model: type[AnomalibModule]

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return self.model(self.model.configure_pre_processor(image_size))


def with_net(net: type[Net]) -> type[AnomalibModule]:
    return type(f"With{net.__name__}", (Sound,), {"net": net})


def keep(promise: str, model: type[AnomalibModule], folder: Path) -> None:
    """Run one test of the contract on a model, with the fixtures it asks for."""
    contract = type("Contract", (SmallContract,), {"model": model})()
    fixtures: dict[str, Callable[[], object]] = {
        "trained": lambda: contract.fit(folder / "trained"),
        "whole": lambda: contract.fit_whole(folder / "whole"),
        "tmp_path": lambda: folder,
    }
    test = getattr(contract, f"test_{promise}")
    test(**{name: fixtures[name]() for name in inspect.signature(test).parameters})


FORWARD = "forward_gives_each_image_a_finite_score_and_map"
ALONE = "result_of_an_image_does_not_depend_on_the_others_of_its_batch"
RESUME = "resumed_training_ends_with_the_weights_of_one_that_never_stopped"
STOP = "training_stops_at_a_loss_that_is_not_finite_and_names_it_and_the_step"


@pytest.mark.parametrize(
    ("promise", "broken", "complaint"),
    [
        (FORWARD, with_net(NotANumber), "pred_score is not finite"),
        (FORWARD, with_net(WrongShape), "anomaly_map has the shape"),
        ("forward_tells_images_apart", with_net(Blind), "all images have the same anomaly map"),
        (ALONE, with_net(JudgesTheBatch), "anomaly_map depends on the batch"),
        ("model_from_a_checkpoint_predicts_the_same", with_net(KeepsWeightsToItself), "anomaly_map has changed"),
        ("same_seed_trains_the_same_weights", with_net(Unseeded), "other weights"),
        ("onnx_graph_of_fixed_size_agrees_with_pytorch", with_net(OtherwiseInTheGraph), "graph is off by"),
        ("progress_bar_shows_finite_losses_of_every_step", LogsNothing, "logs nothing"),
        (RESUME, ForgetsItsPlace, "other weights"),
        (STOP, TrainsOnWithoutANumber, "DID NOT RAISE"),
        (STOP, StopsWithoutAReason, "no loss is named"),
    ],
)
def test_a_sound_model_keeps_a_promise_that_a_broken_one_breaks(
    promise: str, broken: type[AnomalibModule], complaint: str, tmp_path: Path
) -> None:
    keep(promise, Sound, tmp_path / "sound")
    with pytest.raises((AssertionError, pytest.fail.Exception), match=complaint):
        keep(promise, broken, tmp_path / "broken")


def test_a_model_that_optimises_is_refused_by_the_contract_without_training(tmp_path: Path) -> None:
    run = type("Contract", (SmallContract,), {"model": Sound})().fit(tmp_path)
    TrainingContract().test_a_model_with_an_optimiser_is_held_to_the_training_contract(run)
    with pytest.raises(AssertionError, match="TrainingContract"):
        ModelContract().test_a_model_with_an_optimiser_is_held_to_the_training_contract(run)


def test_generated_data_is_the_same_each_time_and_only_defective_images_have_defects(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_folder_data(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png"))
    assert len(files) == 8 + 4 + 4 + 4
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)
    datamodule = folder_datamodule(tmp_path / "one")
    datamodule.setup()
    for item in datamodule.test_data:
        defect = item.image.amin(0) > 0.95  # spots are 245 of 255
        assert (item.gt_mask & ~defect).sum() == 0
        assert item.gt_mask.any() == item.gt_label


class FolderContract(DataModuleContract):
    """Contract of anomalib's ``Folder``."""

    def config(self, root: Path) -> dict[str, object]:
        write_folder_data(root)
        folders = {
            "normal_dir": "normal",
            "normal_test_dir": "normal_test",
            "abnormal_dir": "defective",
            "mask_dir": "masks",
        }
        arguments = {"name": "generated", "root": str(root), "num_workers": 0, "val_split_mode": "same_as_test"}
        return {"class_path": "anomalib.data.Folder", "init_args": {**arguments, **folders}}


def test_a_data_module_that_lacks_only_the_defect_type_is_told_so(tmp_path: Path) -> None:
    contract = FolderContract()
    datamodule = contract.build(tmp_path)
    contract.test_batches_hold_images_labels_and_masks_of_the_images_size(datamodule)
    contract.test_defective_images_have_defect_pixels_and_normal_ones_none(datamodule)
    contract.test_no_image_is_both_for_training_and_for_test_or_validation(datamodule)
    contract.test_same_configuration_gives_the_same_tables(datamodule, tmp_path)
    with pytest.raises(AssertionError, match="defect_type"):
        contract.test_table_has_all_columns_and_a_row_for_each_image(datamodule)


def test_data_that_leaks_or_is_marked_wrongly_is_found(tmp_path: Path) -> None:
    contract = FolderContract()
    datamodule = contract.build(tmp_path)
    datamodule.train_data.samples.loc[0, "image_path"] = datamodule.test_data.samples.image_path[0]
    with pytest.raises(AssertionError, match="image_path is shared by train and"):
        contract.test_no_image_is_both_for_training_and_for_test_or_validation(datamodule)
    Image.new("L", (80, 72)).save(tmp_path / "masks" / "000.png")
    with pytest.raises(AssertionError, match="label and mask disagree"):
        contract.test_defective_images_have_defect_pixels_and_normal_ones_none(datamodule)
