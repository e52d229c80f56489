"""HtpGan and the data module that it is given: it reads one training image, and leaves the module as it was."""

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

# The other images are not looked at


def texture_defects(folder: Path) -> TextureDefects:
    return TextureDefects(root=folder, image_size=64, val_split_mode="none")


@pytest.mark.parametrize("make", [folder_datamodule, texture_defects])
def test_other_training_images_do_not_matter_and_need_not_even_be_images(train, root, make):
    untouched = train(make(root), reference=2)
    datamodule = make(root)
    datamodule.setup()
    paths = list(datamodule.train_data.samples.image_path)
    del paths[2]
    for path in paths:
        Path(path).write_text("no image")
    assert not differences(train(make(root), reference=2).model.state_dict(), untouched.model.state_dict())


def test_another_reference_gives_another_model(train, datamodule):
    models = [train(datamodule, reference=reference).model for reference in (1, 2)]
    assert differences(*(dict(model.model.named_parameters()) for model in models))


def test_no_training_image_but_the_reference_is_opened(train, datamodule, root, monkeypatch):
    opened = []
    original = Image.open

    def watched(path: str, *rest: Any, **more: Any) -> Image.Image:
        opened.append(Path(path))
        return original(path, *rest, **more)

    monkeypatch.setattr(Image, "open", watched)
    train(datamodule, reference="001.png")
    assert {path for path in opened if path.parent == root / "normal"} == {root / "normal" / "001.png"}
    assert [path for path in opened if path.parent == root / "defective"]  # else the watch would have seen nothing


# The data module is as it was


class Fail(Callback):
    """Fails in the second step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Fail."""
        if batch_idx == 1:
            msg = "as asked"
            raise ArithmeticError(msg)


class Batches(Callback):
    """Counts the training batches of an epoch and takes down their images."""

    def __init__(self) -> None:
        self.number = 0
        self.paths: set[str] = set()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Take down a batch."""
        self.number = trainer.num_training_batches
        self.paths |= set(batch.image_path)


def test_training_is_on_the_reference_and_the_data_module_gets_its_batches_back(train, datamodule, root):
    batches = Batches()
    train(datamodule, batches, reference=3, iterations_per_scale=5)
    assert batches.number == 5
    assert batches.paths == {str(root / "normal" / "003.png")}
    assert sum(len(batch.image) for batch in datamodule.train_dataloader()) == 4


def test_the_data_module_gets_its_batches_back_when_training_fails(train, datamodule):
    with pytest.raises(ArithmeticError, match="as asked"):
        train(datamodule, Fail())
    assert sum(len(batch.image) for batch in datamodule.train_dataloader()) == 4


def test_the_data_module_keeps_a_loader_of_its_own(train, datamodule):
    loader = [ImageItem(image=torch.rand(3, 24, 32), image_path="none")]
    datamodule.train_dataloader = lambda: loader
    train(datamodule)
    assert datamodule.train_dataloader() is loader


# Trouble shows before training starts


def test_a_broken_test_image_stops_training_before_it_starts(train, datamodule, root):
    (root / "defective" / "001.png").write_text("no image")
    steps = Batches()
    with pytest.raises(InvalidInputError, match=r"cannot read image .*defective.001\.png"):
        train(datamodule, steps)
    assert not steps.number


def test_a_reference_that_is_not_there_stops_training_before_it_starts(train, datamodule):
    steps = Batches()
    with pytest.raises(InvalidInputError, match=r"reference is 'no\.png'"):
        train(datamodule, steps, reference="no.png")
    assert not steps.number
    assert len(datamodule.train_dataloader().dataset) == 4
