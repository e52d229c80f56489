"""Inspection classifier with a tiny backbone with random weights."""

import math
from pathlib import Path

import pytest
import torch
from dataset_layouts import write_defect_folder
from lightning.pytorch import Trainer
from torch.utils.data import ConcatDataset, DataLoader

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.models.defectgan.defect_classifier import (
    InspectionBatch,
    InspectionClassifier,
    InspectionModel,
    InspectionSet,
    equal_shares,
)
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data

TINY = {"backbone": "test_resnet", "pre_trained": False}
CATEGORIES = ("crack", "dent")


def batch(labels: list[list[int]], synthetic: list[int] | None = None, seed: int = 0) -> InspectionBatch:
    images = torch.rand(len(labels), 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return InspectionBatch(images, torch.tensor(labels).bool(), torch.tensor(synthetic or [0] * len(labels)).bool())


@pytest.fixture
def data(tmp_path: Path) -> DefectFolder:
    write_defect_folder(tmp_path)
    data = DefectFolder(tmp_path, num_workers=0)
    data.setup()
    return data


def loader(data: DefectFolder) -> DataLoader:
    # The same images once as real and once as synthetic ones.
    datasets = [InspectionSet(data.test_data, CATEGORIES, synthetic, image_size=32) for synthetic in (False, True)]
    return DataLoader(ConcatDataset(datasets), 4, shuffle=True, generator=torch.Generator().manual_seed(0))


def fit(model: InspectionClassifier, data: DefectFolder, folder: Path, epochs: int, **arguments: object) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=epochs, default_root_dir=folder, **quiet)
    trainer.fit(model, loader(data), **arguments)
    return trainer


def test_a_set_returns_square_images_labels_and_the_source(data: DefectFolder):
    images = InspectionSet(data.test_data, CATEGORIES, synthetic=True, image_size=24)
    items = {str(data.test_data.samples.defect_type.iloc[row]): images[row] for row in range(len(images))}
    assert {name: item.label.int().tolist() for name, item in items.items()} == {
        "good": [0, 0],
        "crack": [1, 0],
        "dent": [0, 1],
    }
    assert all(item.image.shape == (3, 24, 24) and item.synthetic for item in items.values())


def test_an_image_of_several_types_has_the_label_of_each(data: DefectFolder):
    data.test_data.samples.loc[data.test_data.samples.defect_type == "dent", "defect_type"] = "crack+dent"
    labels = [item.label.int().tolist() for item in InspectionSet(data.test_data, CATEGORIES, image_size=24)]
    assert [1, 1] in labels


def test_a_type_that_is_not_a_category_is_named(data: DefectFolder):
    with pytest.raises(ConfigurationError, match="has defects of type dent; the categories are crack"):
        InspectionSet(data.test_data, ["crack"])


def test_a_data_set_without_types_has_one_category(tmp_path: Path):
    write_folder_data(tmp_path)
    data = folder_datamodule(tmp_path)
    data.setup()
    images = InspectionSet(data.test_data, ["abnormal"], image_size=24)
    assert sum(int(item.label.sum()) for item in images) == 4  # the number of defective images written by default


def test_the_source_classifier_reverses_the_gradient_of_the_backbone():
    """Figure 3: the head minimises the source loss, the backbone receives -weight times its gradient."""
    torch.manual_seed(0)
    model, images = InspectionModel(3, **TINY).eval(), batch([[0, 0]] * 4, [0, 1, 0, 1])
    gradients = {}
    for weight in (1.0, -0.5):  # -0.5 is half of the gradient without reversal
        model.reversal.weight = weight
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            model(images.image).source_logits, images.synthetic.float()
        )
        weights = [model.source_classifier.weight, next(model.backbone.parameters())]
        gradients[weight] = torch.autograd.grad(loss, weights)
    (head, backbone), (same, half) = gradients[1.0], gradients[-0.5]
    torch.testing.assert_close(head, same)
    torch.testing.assert_close(backbone, -2 * half)
    assert backbone.abs().max() > 0


def test_the_normal_class_comes_first_if_an_image_has_one_label():
    model = InspectionClassifier(CATEGORIES, **TINY)
    assert model.targets(torch.tensor([[0, 0], [1, 0], [0, 1]]).bool()).tolist() == [0, 1, 2]
    assert model(batch([[0, 0]] * 2).image).sum(1).tolist() == pytest.approx([1, 1])
    with pytest.raises(InvalidInputError, match="several types, which needs multi_label"):
        model.targets(torch.tensor([[1, 1]]).bool())


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_first_loss_of_untrained_classes_is_at_chance_level(multi_label: bool):
    """ln 3 of three classes, ln 2 of each of two labels, ln 2 of the source."""
    model = InspectionClassifier(CATEGORIES, multi_label, **TINY)
    for head in (model.model.classifier, model.model.source_classifier):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    losses = model.losses(batch([[0, 0], [1, 0]], [0, 1]))
    assert losses["class_loss"].item() == pytest.approx(math.log(2 if multi_label else 3))
    assert losses["source_loss"].item() == pytest.approx(math.log(2))


def test_without_the_source_classifier_there_is_no_source_loss():
    assert set(InspectionClassifier(CATEGORIES, source_classifier=False, **TINY).losses(batch([[0, 0]] * 2))) == {
        "class_loss"
    }


class Constant(torch.nn.Module):
    """Network that returns the same logits for any image."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits, dtype=torch.float)

    def forward(self, image: torch.Tensor) -> object:
        return type("Output", (), {"logits": self.logits[: len(image)]})


def test_an_image_with_several_labels_is_right_only_if_all_of_them_are():
    """Of four images, two have both labels right: accuracy 1/2; of eight labels, six are right."""
    model = InspectionClassifier(CATEGORIES, multi_label=True, **TINY)
    model.model = Constant([[9, -9], [9, 9], [9, -9], [-9, -9]])
    model.log_dict = lambda *_, **__: None
    model.test_step(batch([[1, 0], [1, 1], [1, 1], [0, 1]]), 0)
    metrics = {name: metric.compute().item() for name, metric in model.metrics["test"].items()}
    assert metrics["accuracy"] == pytest.approx(1 / 2)
    assert metrics["label_accuracy"] == pytest.approx(6 / 8)
    # crack: 3 of 3 detected, F1 1; dent: 1 of 3 detected, none false, F1 2 / (2 + 2) = 1/2.
    assert metrics["macro_f1"] == pytest.approx(3 / 4)


def test_metrics_with_one_label_are_those_of_its_class():
    """normal, normal, crack, dent predicted as normal, crack, crack, dent: 3 of 4; F1 2/3, 2/3 and 1."""
    model = InspectionClassifier(CATEGORIES, **TINY)
    model.model = Constant([[9, 0, 0], [0, 9, 0], [0, 9, 0], [0, 0, 9]])
    model.log_dict = lambda *_, **__: None
    model.test_step(batch([[0, 0], [0, 0], [1, 0], [0, 1]]), 0)
    metrics = {name: metric.compute().item() for name, metric in model.metrics["test"].items()}
    assert metrics == {"accuracy": pytest.approx(3 / 4), "macro_f1": pytest.approx((2 / 3 + 2 / 3 + 1) / 3)}


def test_it_trains_and_its_checkpoint_restores_the_classifier(data: DefectFolder, tmp_path: Path):
    torch.manual_seed(0)
    model = InspectionClassifier(CATEGORIES, **TINY)
    before = model.model.classifier.weight.clone()
    trainer = fit(model, data, tmp_path, 2)
    assert (model.model.classifier.weight != before).any()
    # Last of 2 epochs of 4 batches: progress 7/8, 2 / (1 + exp(-8.75)) - 1 = 0.99968.
    assert model.model.reversal.weight == pytest.approx(0.99968, abs=1e-5)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = InspectionClassifier.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    image = batch([[0, 0]]).image
    torch.testing.assert_close(loaded(image), model.cpu().eval()(image))


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_norms_keep_their_statistics_while_weights_are_trained(data: DefectFolder, tmp_path: Path, frozen: bool):
    model = InspectionClassifier(CATEGORIES, frozen_norm=frozen, **TINY)
    before = {name: value.clone() for name, value in model.model.backbone.state_dict().items()}
    fit(model, data, tmp_path, 1)
    after = model.model.backbone.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert any(name.endswith("running_mean") for name in changed) != frozen
    assert any("conv" in name for name in changed)


def test_a_resumed_training_continues_at_its_step(data: DefectFolder, tmp_path: Path):
    torch.manual_seed(0)
    trainer = fit(InspectionClassifier(CATEGORIES, **TINY), data, tmp_path, 1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    model = InspectionClassifier(CATEGORIES, **TINY)
    resumed = fit(model, data, tmp_path, 2, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert resumed.global_step == 2 * trainer.global_step


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"categories": ["a"], "backbone": "no_net", "pre_trained": False}, "timm cannot load model 'no_net'"),
        ({"categories": [], **TINY}, "categories is empty"),
        ({"categories": ["a"], "learning_rate": 0, **TINY}, "learning_rate is 0; it must be more than 0"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, object], line: str):
    with pytest.raises(InvalidInputError, match=line):
        InspectionClassifier(**arguments)


def test_each_class_is_drawn_equally_often_with_the_same_share_of_synthetic_images(data: DefectFolder):
    tables = [data.train_data, data.test_data]  # good ones only; good, crack and dent
    parts = [InspectionSet(table, CATEGORIES, synthetic) for table in tables for synthetic in (False, True)]
    sampler = equal_shares(parts, 100, 0.25)
    rows = [("+".join(types), part.synthetic) for part in parts for types in part.types]
    total: dict[tuple[str, bool], float] = {}
    for row, weight in zip(rows, sampler.weights.tolist(), strict=True):
        total[row] = total.get(row, 0) + weight
    assert total == pytest.approx(
        {(kind, source): 0.25 if source else 0.75 for kind in ("", "crack", "dent") for source in (False, True)}
    )
    assert sampler.num_samples == 100


def test_a_class_without_synthetic_images_is_refused_unless_none_are_drawn(data: DefectFolder):
    parts = [InspectionSet(data.test_data, CATEGORIES), InspectionSet(data.train_data, CATEGORIES, synthetic=True)]
    with pytest.raises(InvalidInputError, match=r"there is no synthetic image of the class (crack|dent), so its share"):
        equal_shares(parts, 10, 0.5)
    assert equal_shares(parts[:1], 10, 0).num_samples == 10
