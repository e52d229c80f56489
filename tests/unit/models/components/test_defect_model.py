"""Shared behaviour of all models: the seed, random numbers, and the default pre-processor."""

import pytest
import torch
from anomalib.models.components import AnomalibModule
from torch import nn

from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.models.components.defect_model import DefectModel


class SmallModel(DefectModel, AnomalibModule):
    """A model with a single convolution."""

    default_image_size = (24, 36)
    trainer_arguments = {}  # noqa: RUF012 - a property in anomalib

    def __init__(self, image_size: Size = (16, 16)) -> None:
        super().__init__(image_size, post_processor=False, evaluator=False, visualizer=False)
        self.model = nn.Conv2d(3, 1, 1)


class GreyModel(SmallModel):
    """A model of grey images."""

    grey = True


def seeded(seed: int) -> SmallModel:
    model = SmallModel()
    model.seed.fill_(seed)
    return model


def draw(model: SmallModel, *numbers: int) -> list[float]:
    return torch.rand(4, generator=model.rng(*numbers)).tolist()


def test_a_checkpoint_without_a_seed_loads_with_its_weights() -> None:
    state = seeded(5).state_dict()
    del state["seed"]
    model = SmallModel()
    model.load_state_dict(state)
    assert torch.equal(model.model.weight, state["model.weight"])
    assert model.seed == -1


def test_a_checkpoint_with_a_seed_restores_it() -> None:
    model = SmallModel()
    model.load_state_dict(seeded(5).state_dict())
    assert model.seed == 5


def test_the_seed_is_drawn_at_the_start_of_training_unless_a_checkpoint_restored_it() -> None:
    torch.manual_seed(7)
    model, restored = SmallModel(), seeded(5)
    model.on_fit_start()
    restored.on_fit_start()
    assert (model.seed, restored.seed) == (7, 5)


def test_random_numbers_depend_on_the_seed_and_the_numbers_only() -> None:
    expected = draw(seeded(5), 1, 2)
    torch.manual_seed(99)
    assert draw(seeded(5), 1, 2) == expected
    assert all(other != expected for other in (draw(seeded(6), 1, 2), draw(seeded(5), 2, 1), draw(seeded(5), 1)))


def test_random_numbers_leave_the_global_generator_unchanged() -> None:
    model = seeded(5)
    before = torch.get_rng_state()
    draw(model, 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("size", "expected"), [(None, (24, 36)), ((10, 20), (10, 20))])
def test_the_pre_processor_resizes_to_the_default_image_size_or_the_one_passed(
    size: Size | None, expected: Size
) -> None:
    images = torch.rand(2, 3, 50, 60)
    assert SmallModel.configure_pre_processor(size)(images).shape == (2, 3, *expected)


def test_the_pre_processor_of_a_model_has_its_image_size() -> None:
    model = SmallModel((20, 28))
    assert model.pre_processor(torch.rand(1, 3, 50, 60)).shape == (1, 3, 20, 28)
    assert model.image_size == (20, 28)


def test_the_pre_processor_of_a_grey_model_makes_three_equal_channels() -> None:
    images = torch.rand(2, 3, 50, 60)
    grey, colour = (kind.configure_pre_processor()(images) for kind in (GreyModel, SmallModel))
    assert grey.shape == (2, 3, 24, 36)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    assert not torch.equal(colour[:, 0], colour[:, 1])
