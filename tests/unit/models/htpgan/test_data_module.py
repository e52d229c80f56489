"""HtpGan and its data module: it reads one training image, and leaves the module unchanged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import ImageItem
from lightning.pytorch import Callback
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data import TextureDefects
from anomalib_defect_plugins.testing import folder_datamodule
from anomalib_defect_plugins.testing.runs import differences

# Other images are not read


def texture_defects(folder: Path) -> TextureDefects:
    return TextureDefects(root=folder, image_size=64, val_split_mode="none")


@pytest.mark.parametrize("build", [folder_datamodule, texture_defects])
def test_other_training_images_have_no_influence_and_may_be_corrupt(train, root, build):
    expected = train(build(root), reference=2).model.state_dict()
    datamodule = build(root)
    datamodule.setup()
    paths = list(datamodule.train_data.samples.image_path)
    del paths[2]
    for path in paths:
        Path(path).write_text("no image")
    assert not differences(train(build(root), reference=2).model.state_dict(), expected)


def test_another_reference_gives_another_model(train, datamodule):
    models = [train(datamodule, reference=reference).model for reference in (1, 2)]
    assert differences(*(dict(model.model.named_parameters()) for model in models))


def test_no_training_image_but_the_reference_is_opened(train, datamodule, root, monkeypatch):
    opened = []
    original = Image.open

    def spy(path: str, *args: Any, **kwargs: Any) -> Image.Image:
        opened.append(Path(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(Image, "open", spy)
    train(datamodule, reference="001.png")
    assert {path for path in opened if path.parent == root / "normal"} == {root / "normal" / "001.png"}
    assert [path for path in opened if path.parent == root / "defective"]  # otherwise the spy has recorded nothing


# The data module stays unchanged


class Fail(Callback):
    """Raises an error in the second step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Raise the error."""
        if batch_idx == 1:
            msg = "second step"
            raise ArithmeticError(msg)


class Batches(Callback):
    """Records the number of training batches per epoch, and their image paths."""

    def __init__(self) -> None:
        self.number = 0
        self.paths: set[str] = set()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Record a batch."""
        self.number = trainer.num_training_batches
        self.paths |= set(batch.image_path)


def test_training_uses_the_reference_and_restores_the_batches_of_the_data_module(train, datamodule, root):
    batches = Batches()
    train(datamodule, batches, reference=3, iterations_per_scale=5)
    assert batches.number == 5
    assert batches.paths == {str(root / "normal" / "003.png")}
    assert sum(len(batch.image) for batch in datamodule.train_dataloader()) == 4


def test_the_batches_of_the_data_module_are_restored_when_training_fails(train, datamodule):
    with pytest.raises(ArithmeticError, match="second step"):
        train(datamodule, Fail())
    assert sum(len(batch.image) for batch in datamodule.train_dataloader()) == 4


def test_a_custom_loader_of_the_data_module_is_restored(train, datamodule):
    loader = [ImageItem(image=torch.rand(3, 24, 32), image_path="none")]
    datamodule.train_dataloader = lambda: loader
    train(datamodule)
    assert datamodule.train_dataloader() is loader


# Errors are raised before training starts


def test_a_broken_test_image_stops_training_before_it_starts(train, datamodule, root):
    (root / "defective" / "001.png").write_text("no image")
    batches = Batches()
    with pytest.raises(InvalidInputError, match=r"cannot read image .*defective.001\.png"):
        train(datamodule, batches)
    assert not batches.number


def test_an_unknown_reference_stops_training_before_it_starts(train, datamodule):
    batches = Batches()
    with pytest.raises(InvalidInputError, match=r"reference is 'no\.png'"):
        train(datamodule, batches, reference="no.png")
    assert not batches.number
    assert len(datamodule.train_dataloader().dataset) == 4
