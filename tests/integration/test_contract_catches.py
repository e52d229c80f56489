"""The contract passes a valid model and fails a broken one."""

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
    """A convolution that learns to reconstruct normal images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def difference(self, image: Tensor) -> Tensor:
        return (self.conv(image) - image).abs().mean(1, keepdim=True)

    def forward(self, image: Tensor) -> InferenceBatch:
        anomaly_map = self.difference(image)
        return InferenceBatch(pred_score=anomaly_map.amax((1, 2, 3)), anomaly_map=anomaly_map)


class ValidModel(AnomalibModule):
    """A model that passes the contract."""

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


class PredictsNan(Net):
    def difference(self, image: Tensor) -> Tensor:
        return super().difference(image) * (1 if self.training else torch.nan)


class IgnoresTheImage(Net):
    def difference(self, image: Tensor) -> Tensor:
        return super().difference(image) if self.training else super().difference(image[:1] * 0 + 1) + image[:, :1] * 0


class DependsOnTheBatch(Net):
    def difference(self, image: Tensor) -> Tensor:
        difference = super().difference(image)
        return difference if self.training else difference / difference.amax()


class WrongShape(Net):
    def forward(self, image: Tensor) -> InferenceBatch:
        result = super().forward(image)
        return result._replace(anomaly_map=result.anomaly_map[..., ::2, ::2])


class LosesWeights(Net):
    def __init__(self) -> None:
        super().__init__()
        self.factor = 1 + torch.rand(3, 1, 1)

    def difference(self, image: Tensor) -> Tensor:
        return super().difference(image * self.factor)


class Unseeded(Net):
    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.conv.bias, int.from_bytes(os.urandom(4), "big") / 2**32)


class DiffersInTheGraph(Net):
    def forward(self, image: Tensor) -> InferenceBatch:
        return super().forward(image * 1.05 if torch.compiler.is_compiling() else image)


class LogsNothing(ValidModel):
    def log(self, *args: object, **kwargs: object) -> None:
        """Log nothing."""


class IgnoresNan(ValidModel):
    def check(self, loss: Tensor, batch_idx: int) -> None:
        """Check nothing."""


class NamesNoLoss(ValidModel):
    def check(self, loss: Tensor, batch_idx: int) -> None:
        if not loss.isfinite():
            msg = f"something went wrong at step {batch_idx}"
            raise FloatingPointError(msg)


class LosesItsStep(ValidModel):
    """Scales its loss by a step count that checkpoints do not contain."""

    steps = 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.steps += 1
        return super().training_step(batch, batch_idx) / self.steps**2


class SmallContract(TrainingContract):
    """The contract of a model."""

    model: type[AnomalibModule]

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return self.model(self.model.configure_pre_processor(image_size))


def with_net(net: type[Net]) -> type[AnomalibModule]:
    return type(f"With{net.__name__}", (ValidModel,), {"net": net})


def run_contract_test(name: str, model: type[AnomalibModule], folder: Path) -> None:
    """Run a test of the contract for a model, with the fixtures that it requests."""
    contract = type("Contract", (SmallContract,), {"model": model})()
    fixtures: dict[str, Callable[[], object]] = {
        "trained": lambda: contract.fit(folder / "trained"),
        "whole": lambda: contract.fit_whole(folder / "whole"),
        "tmp_path": lambda: folder,
    }
    test = getattr(contract, f"test_{name}")
    test(**{fixture: fixtures[fixture]() for fixture in inspect.signature(test).parameters})


FORWARD = "forward_gives_each_image_a_finite_score_and_map"
ALONE = "result_of_an_image_does_not_depend_on_the_others_of_its_batch"
RESUME = "resumed_training_ends_with_the_weights_of_one_that_never_stopped"
STOP = "training_stops_at_a_loss_that_is_not_finite_and_names_it_and_the_step"


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        (FORWARD, with_net(PredictsNan), "pred_score is not finite"),
        (FORWARD, with_net(WrongShape), "anomaly_map has the shape"),
        ("forward_distinguishes_images", with_net(IgnoresTheImage), "all images have the same anomaly map"),
        (ALONE, with_net(DependsOnTheBatch), "anomaly_map depends on the batch"),
        ("model_from_a_checkpoint_predicts_the_same", with_net(LosesWeights), "anomaly_map has changed"),
        ("same_seed_trains_the_same_weights", with_net(Unseeded), "other weights"),
        ("onnx_graph_of_fixed_size_agrees_with_pytorch", with_net(DiffersInTheGraph), "graph is off by"),
        ("progress_bar_shows_finite_losses_of_every_step", LogsNothing, "logs no value"),
        (RESUME, LosesItsStep, "other weights"),
        (STOP, IgnoresNan, "DID NOT RAISE"),
        (STOP, NamesNoLoss, "no loss is named"),
    ],
)
def test_a_valid_model_passes_a_test_that_a_broken_model_fails(
    name: str, broken: type[AnomalibModule], message: str, tmp_path: Path
) -> None:
    run_contract_test(name, ValidModel, tmp_path / "valid")
    with pytest.raises((AssertionError, pytest.fail.Exception), match=message):
        run_contract_test(name, broken, tmp_path / "broken")


def test_a_model_with_an_optimiser_fails_the_contract_without_training(tmp_path: Path) -> None:
    run = type("Contract", (SmallContract,), {"model": ValidModel})().fit(tmp_path)
    TrainingContract().test_a_model_with_an_optimiser_uses_the_training_contract(run)
    with pytest.raises(AssertionError, match="TrainingContract"):
        ModelContract().test_a_model_with_an_optimiser_uses_the_training_contract(run)


def test_generated_data_is_reproducible_and_only_defective_images_have_defects(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_folder_data(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png"))
    assert len(files) == 8 + 4 + 4 + 4
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)
    datamodule = folder_datamodule(tmp_path / "one")
    datamodule.setup()
    for item in datamodule.test_data:
        defect = item.image.amin(0) > 0.95  # spots have the value 245 of 255
        assert (item.gt_mask & ~defect).sum() == 0
        assert item.gt_mask.any() == item.gt_label


class FolderContract(DataModuleContract):
    """The contract of anomalib's ``Folder``."""

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


def test_a_data_module_without_defect_types_fails_only_the_tests_of_defect_types(tmp_path: Path) -> None:
    contract = FolderContract()
    datamodule = contract.build(tmp_path)
    contract.test_batches_hold_images_labels_and_masks_of_the_image_size(datamodule)
    contract.test_defective_images_have_defect_pixels_and_normal_ones_none(datamodule)
    contract.test_no_image_is_both_for_training_and_for_test_or_validation(datamodule)
    contract.test_same_configuration_gives_the_same_tables(datamodule, tmp_path)
    with pytest.raises(AssertionError, match="defect_type"):
        contract.test_table_has_all_columns_and_a_row_for_each_image(datamodule)


def test_leaking_data_and_wrong_masks_fail(tmp_path: Path) -> None:
    contract = FolderContract()
    datamodule = contract.build(tmp_path)
    datamodule.train_data.samples.loc[0, "image_path"] = datamodule.test_data.samples.image_path[0]
    with pytest.raises(AssertionError, match="image_path is shared by train and"):
        contract.test_no_image_is_both_for_training_and_for_test_or_validation(datamodule)
    Image.new("L", (80, 72)).save(tmp_path / "masks" / "000.png")
    with pytest.raises(AssertionError, match="label and mask disagree"):
        contract.test_defective_images_have_defect_pixels_and_normal_ones_none(datamodule)
