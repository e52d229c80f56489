"""Defects of a Defect-GAN whose weights are set by hand: white, where the control map is above a half."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.models.defectgan.generator import DefectGanDefects
from anomalib_defect_plugins.testing import GeneratorContract
from anomalib_defect_plugins.testing.generator import textures

WHITE = torch.tensor(2.0).tanh().item() / 2 + 0.5
"""What the foreground comes to in [0, 1]."""


def set_by_hand(model: DefectGan) -> None:
    """Let m be sigmoid(20 A - 10), for any category, and the foreground white."""
    generator = model.model.generator
    norm = generator.decoder[-1].norm
    for conv in (norm.shared[0], norm.scale, norm.shift):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    norm.scale.bias.data.fill_(-1)  # features are forgotten
    norm.shared[0].weight.data[0, :, 1, 1] = 1
    norm.shift.weight.data[0, 0, 1, 1] = 1  # channel 0 is A, channel 1 is 1
    norm.shift.bias.data[1] = 1
    torch.nn.init.zeros_(generator.head.weight)
    generator.head.weight.data[:3, 1, 3, 3] = 2
    generator.head.weight.data[3, :2, 3, 3] = torch.tensor([20.0, -10.0])


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("defectgan") / "model.ckpt"
    model = DefectGan((64, 64), categories=["crack", "dent"], channels=2, residual_blocks=0)
    set_by_hand(model)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    return path


class TestDefectGanDefects(GeneratorContract):
    @pytest.fixture(autouse=True)
    def _take_checkpoint(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def make_generator(self) -> DefectGanDefects:
        return DefectGanDefects(self.checkpoint)


def draw(generator, images, seed=0):
    return generator(images, torch.Generator().manual_seed(seed))


def test_a_defect_fades_in_from_its_border_to_the_models_own_image(checkpoint):
    images = textures()
    defective, masks = draw(DefectGanDefects(checkpoint), images)
    change = (defective - images).abs().amax(1, keepdim=True)
    assert ((defective - WHITE).abs() < 0.01)[(change > 0.2).expand_as(defective)].float().mean() > 0.9
    assert not (change * ~masks).any()


def test_the_whole_image_is_too_large_a_defect_and_the_image_stays_as_it_is(checkpoint):
    images = textures()
    defective, masks = draw(DefectGanDefects(checkpoint, region="whole"), images)
    assert not masks.any()
    assert torch.equal(defective, images)


def test_images_of_another_size_keep_their_own_pixels_beside_the_defect(checkpoint):
    images = textures(size=(100, 140))
    defective, masks = draw(DefectGanDefects(checkpoint), images)
    assert masks.any()
    assert torch.equal(defective.masked_fill(masks, 0), images.masked_fill(masks, 0))


def test_a_category_is_the_one_that_is_asked_for_and_otherwise_any(checkpoint):
    def channels(**arguments):
        generator = DefectGanDefects(checkpoint, **arguments)
        control = generator._control(textures(40), torch.Generator().manual_seed(0))
        return control.flatten(2).amax(2).sum(0).tolist()

    assert channels(category="dent") == [0, 40]
    some = channels()
    assert sum(some) == 40
    assert min(some) > 8  # 20 expected, standard deviation 3


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"none\.ckpt is missing; give the model.ckpt"):
        DefectGanDefects(tmp_path / "none.ckpt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": "stain"}, "model.ckpt knows no category 'stain'; choose one of crack, dent"),
        ({"region": "left"}, "region of DefectGanDefects is 'left'; it must be one of random, whole"),
        ({"threshold": 1.5}, "threshold of DefectGanDefects is 1.5; it must be within 0.02 and 0.98"),
    ],
)
def test_an_argument_that_cannot_be_is_refused(checkpoint, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        DefectGanDefects(checkpoint, **arguments)
