"""The contract, run for this package's generators, and how they are found by name."""

import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins.generators import (
    CutPasteDefects,
    CutPasteScarDefects,
    DefectGanDefects,
    DefectGenerator,
    MixedDefects,
    NoiseDefects,
    PerturbDefects,
    PoissonDefects,
    ProceduralDefects,
)
from anomalib_defect_plugins.plugins.bridge import registered
from anomalib_defect_plugins.plugins.instantiate import build
from anomalib_defect_plugins.plugins.manager import Kind
from anomalib_defect_plugins.testing import GeneratorContract
from anomalib_defect_plugins.testing.generator import textures

NAMES = {
    "noise": NoiseDefects,
    "cutpaste": CutPasteDefects,
    "cutpaste_scar": CutPasteScarDefects,
    "poisson": PoissonDefects,
    "perturb": PerturbDefects,
    "mixed": MixedDefects,
    "procedural": ProceduralDefects,
}


class TestNoise(GeneratorContract):
    def make_generator(self) -> DefectGenerator:
        return NoiseDefects()


class TestCutPaste(GeneratorContract):
    def make_generator(self) -> DefectGenerator:
        return CutPasteDefects()


class TestCutPasteScar(GeneratorContract):
    def make_generator(self) -> DefectGenerator:
        return CutPasteScarDefects()


class TestPoisson(GeneratorContract):
    def make_generator(self) -> DefectGenerator:
        return PoissonDefects()


class TestPerturb(GeneratorContract):
    def make_generator(self) -> DefectGenerator:
        return PerturbDefects()


class TestMixed(GeneratorContract):
    def make_generator(self) -> DefectGenerator:
        return MixedDefects()


class TestProcedural(GeneratorContract):
    def make_generator(self) -> DefectGenerator:
        return ProceduralDefects()


def test_every_generator_is_registered_under_its_defect_type():
    found = registered(Kind.GENERATOR)
    assert NAMES.items() <= found.items()
    assert found["defectgan"] is DefectGanDefects  # which cannot be made without a checkpoint
    assert all(cls.name == name for name, cls in found.items() if cls in {*NAMES.values(), DefectGanDefects})


@pytest.mark.parametrize("name", NAMES)
def test_a_registered_name_makes_a_generator(name: str):
    assert isinstance(build(DefectGenerator, name, "the generator"), NAMES[name])


def test_a_mapping_as_in_a_configuration_sets_the_arguments():
    settings = {"class_path": "procedural", "init_args": {"kinds": ["crack", "hole"]}}
    assert build(DefectGenerator, settings, "the generator").kinds == ("crack", "hole")
    settings = {"class_path": "cutpaste", "init_args": {"area": [0.01, 0.05]}}
    assert build(DefectGenerator, settings, "the generator").area == (0.01, 0.05)


class Leaky(NoiseDefects):
    """Changes pixels beside its mask."""

    def __call__(self, images: Tensor, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        defective, mask = super().__call__(images, rng)
        return 1 - defective, mask


class Thoughtless(CutPasteDefects):
    """Draws from the random generator of the process."""

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return super().draw(images, torch.default_generator)


class Greedy(NoiseDefects):
    """Covers everything."""

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return 1 - images, torch.ones_like(images[:, :1], dtype=torch.bool)


class Idle(NoiseDefects):
    """Draws nothing."""

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return images, torch.ones_like(images[:, :1], dtype=torch.bool)


class Rough(NoiseDefects):
    """Draws on the images that it is given."""

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        defective, mask = super().draw(images, rng)
        return images.copy_(defective), mask


class Monotonous(PoissonDefects):
    """Draws the same on every image of a batch."""

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return tuple(part.expand(len(images), -1, -1, -1) for part in super().draw(images[:1], rng))


FORM = {"batch": 5, "channels": 3, "size": (64, 64)}


@pytest.mark.parametrize(
    ("broken", "promise", "arguments"),
    [
        (Leaky, "pixels_change_visibly_inside_the_mask_and_not_at_all_outside", FORM),
        (Thoughtless, "random_states_of_the_process_are_not_touched_if_a_generator_is_given", {}),
        (Thoughtless, "same_state_of_the_random_generator_gives_the_same_defects_and_another_others", {}),
        (Greedy, "masks_on_textures_are_neither_empty_nor_half_of_the_image", FORM),
        (Greedy, "equal_images_of_a_batch_get_different_defects", {}),
        (Idle, "masks_on_textures_are_neither_empty_nor_half_of_the_image", FORM),
        (Rough, "images_that_are_given_stay_as_they_are", {}),
        (Monotonous, "equal_images_of_a_batch_get_different_defects", {}),
    ],
)
def test_the_contract_finds_what_is_wrong_with_a_broken_generator(
    broken: type[DefectGenerator], promise: str, arguments: dict[str, object]
):
    contract = GeneratorContract()
    contract.make_generator = broken
    with pytest.raises(AssertionError):
        getattr(contract, f"test_{promise}")(**arguments)


@pytest.mark.parametrize("size", [(32, 32), (33, 200), (200, 33)], ids=str)
@pytest.mark.parametrize("aspect", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("cls", [CutPasteDefects, PoissonDefects])
def test_the_greatest_patches_still_find_two_places(cls: type[DefectGenerator], aspect: float, size: tuple[int, int]):
    generator = cls(area=(0.3, 0.3), aspect=(aspect, aspect))
    _, masks = generator(textures(5, 1, size), torch.Generator().manual_seed(0))
    assert masks.flatten(1).any(1).all()


def test_the_greatest_scars_still_find_two_places():
    generator = CutPasteScarDefects(width=(100, 100), length=(100, 100))
    _, masks = generator(textures(5, 1, (32, 32)), torch.Generator().manual_seed(0))
    # 12.5 of 32 pixels, rounded to 12: 144 pixels at any angle, but for those that the border cuts in two.
    assert (masks.flatten(1).sum(1) - 144).abs().max() <= 12
