"""Defects of a Defect-GAN with fixed weights: white where the control map is above a half."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import TextureDefects, WithDefects
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.models.defectgan.generator import DefectGanDefects
from anomalib_defect_plugins.testing import GeneratorContract
from anomalib_defect_plugins.testing.generator import textures

WHITE = torch.tensor(2.0).tanh().item() / 2 + 0.5
"""Value of the foreground in [0, 1]."""


def set_weights(model: DefectGan) -> None:
    """Set the weights for which m is sigmoid(20 A - 10) for all categories, and the foreground is white."""
    generator = model.model.generator
    norm = generator.decoder[-1].norm
    for conv in (norm.shared[0], norm.scale, norm.shift):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    norm.scale.bias.data.fill_(-1)  # features have no effect
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
    set_weights(model)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    return path


class TestDefectGanDefects(GeneratorContract):
    @pytest.fixture(autouse=True)
    def _set_checkpoint(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def make_generator(self) -> DefectGanDefects:
        return DefectGanDefects(self.checkpoint)


def draw(generator: DefectGanDefects, images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    return generator(images, torch.Generator().manual_seed(seed))


def test_a_defect_fades_in_from_its_border_to_the_generated_image(checkpoint: Path) -> None:
    images = textures()
    defective, masks = draw(DefectGanDefects(checkpoint), images)
    change = (defective - images).abs().amax(1, keepdim=True)
    assert ((defective - WHITE).abs() < 0.01)[(change > 0.2).expand_as(defective)].float().mean() > 0.9
    assert not (change * ~masks).any()


def test_a_defect_of_the_whole_image_is_too_large_and_the_image_is_unchanged(checkpoint: Path) -> None:
    images = textures()
    defective, masks = draw(DefectGanDefects(checkpoint, region="whole"), images)
    assert not masks.any()
    assert torch.equal(defective, images)


def test_images_of_another_size_keep_their_pixels_outside_the_defect(checkpoint: Path) -> None:
    images = textures(size=(100, 140))
    defective, masks = draw(DefectGanDefects(checkpoint), images)
    assert masks.any()
    assert torch.equal(defective.masked_fill(masks, 0), images.masked_fill(masks, 0))


def test_the_category_is_the_requested_one_and_random_by_default(checkpoint: Path) -> None:
    def channels(**arguments: Any) -> list[float]:
        generator = DefectGanDefects(checkpoint, **arguments)
        control = generator.control_maps(textures(40), torch.Generator().manual_seed(0))
        counts: list[float] = control.flatten(2).amax(2).sum(0).tolist()
        return counts

    assert channels(category="dent") == [0, 40]
    counts = channels()
    assert sum(counts) == 40
    assert min(counts) > 8  # 20 expected, standard deviation 3


def test_a_missing_checkpoint_is_one_line() -> None:
    with pytest.raises(InvalidInputError, match=r"defectgan draws with .*: pass --data\.synthetic\.checkpoint"):
        WithDefects(TextureDefects(image_size=64), synthetic="defectgan")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.ckpt is missing; pass the model.ckpt"):
        DefectGanDefects(tmp_path / "none.ckpt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": "stain"}, "model.ckpt knows no category 'stain'; choose one of crack, dent"),
        ({"region": "left"}, "region of DefectGanDefects is 'left'; it must be one of random, whole"),
        ({"threshold": 1.5}, "threshold of DefectGanDefects is 1.5; it must be from 0.02 to 0.98"),
    ],
)
def test_an_invalid_argument_is_refused(checkpoint: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        DefectGanDefects(checkpoint, **arguments)
