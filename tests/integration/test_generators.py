"""The contract of defect generators, for the generators of this package, and their registered names."""

import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins import generators
from anomalib_defect_plugins.generators import (
    CutPasteDefects,
    CutPasteScarDefects,
    DefectGenerator,
    MixedDefects,
    NoiseDefects,
    PerturbDefects,
    PoissonDefects,
    ProceduralDefects,
    ShadingDefects,
)
from anomalib_defect_plugins.models.defectgan.generator import DefectGanDefects
from anomalib_defect_plugins.plugins import Kind, registered
from anomalib_defect_plugins.plugins.instantiate import build
from anomalib_defect_plugins.testing import GeneratorContract
from anomalib_defect_plugins.testing.generator import textures

NAMES = {
    "noise": NoiseDefects,
    "cutpaste": CutPasteDefects,
    "cutpaste_scar": CutPasteScarDefects,
    "poisson": PoissonDefects,
    "perturb": PerturbDefects,
    "shading": ShadingDefects,
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


class TestShading(GeneratorContract):
    def make_generator(self) -> DefectGenerator:
        return ShadingDefects()


class TestMixed(GeneratorContract):
    def make_generator(self) -> DefectGenerator:
        return MixedDefects()


class TestProcedural(GeneratorContract):
    def make_generator(self) -> DefectGenerator:
        return ProceduralDefects()


def test_every_generator_is_registered_under_its_defect_type() -> None:
    classes = registered(Kind.GENERATOR)
    assert NAMES.items() <= classes.items()
    assert classes["defectgan"] is DefectGanDefects  # which needs a checkpoint to be created
    assert all(cls.name == name for name, cls in classes.items() if cls in {*NAMES.values(), DefectGanDefects})


def test_generators_of_other_plugins_are_attributes_of_the_package() -> None:
    assert generators.DefectGanDefects is DefectGanDefects


def test_an_unknown_attribute_of_the_package_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="generators' has no attribute 'NoDefects'"):
        _ = generators.NoDefects


@pytest.mark.parametrize("name", NAMES)
def test_a_registered_name_creates_a_generator(name: str) -> None:
    assert isinstance(build(DefectGenerator, name, "the generator"), NAMES[name])


def test_a_mapping_from_a_configuration_sets_the_arguments() -> None:
    settings = {"class_path": "procedural", "init_args": {"kinds": ["crack", "hole"]}}
    assert build(DefectGenerator, settings, "the generator").kinds == ("crack", "hole")
    settings = {"class_path": "cutpaste", "init_args": {"area": [0.01, 0.05]}}
    assert build(DefectGenerator, settings, "the generator").area == (0.01, 0.05)


class Leaky(NoiseDefects):
    """Changes pixels outside its mask."""

    def __call__(self, images: Tensor, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        defective, mask = super().__call__(images, rng)
        return 1 - defective, mask


class Irreproducible(CutPasteDefects):
    """Draws from the global random generator."""

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


class InPlace(NoiseDefects):
    """Modifies the images."""

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        defective, mask = super().draw(images, rng)
        return images.copy_(defective), mask


class Monotonous(PoissonDefects):
    """Draws the same on every image of a batch."""

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        defective, mask = super().draw(images[:1], rng)
        return defective.expand(len(images), -1, -1, -1), mask.expand(len(images), -1, -1, -1)


FORM = {"batch": 5, "channels": 3, "size": (64, 64)}


@pytest.mark.parametrize(
    ("broken", "test", "arguments"),
    [
        (Leaky, "pixels_change_visibly_inside_the_mask_and_not_at_all_outside", FORM),
        (Irreproducible, "global_random_states_are_unchanged_if_a_generator_is_passed", {}),
        (Irreproducible, "equal_random_states_give_equal_defects_and_others_different_ones", {}),
        (Greedy, "masks_on_textures_are_neither_empty_nor_half_of_the_image", FORM),
        (Greedy, "equal_images_of_a_batch_get_different_defects", {}),
        (Idle, "masks_on_textures_are_neither_empty_nor_half_of_the_image", FORM),
        (InPlace, "input_images_are_not_modified", {}),
        (Monotonous, "equal_images_of_a_batch_get_different_defects", {}),
    ],
)
def test_the_contract_detects_a_broken_generator(
    broken: type[DefectGenerator], test: str, arguments: dict[str, object]
) -> None:
    contract = GeneratorContract()
    contract.make_generator = broken
    with pytest.raises(AssertionError):
        getattr(contract, f"test_{test}")(**arguments)


@pytest.mark.parametrize("size", [(32, 32), (33, 200), (200, 33)], ids=str)
@pytest.mark.parametrize("aspect", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("cls", [CutPasteDefects, PoissonDefects])
def test_the_largest_patches_still_have_two_positions(
    cls: type[CutPasteDefects | PoissonDefects], aspect: float, size: tuple[int, int]
) -> None:
    generator = cls(area=(0.3, 0.3), aspect=(aspect, aspect))
    _, masks = generator(textures(5, 1, size), torch.Generator().manual_seed(0))
    assert masks.flatten(1).any(1).all()


def test_the_largest_scars_still_have_two_positions() -> None:
    generator = CutPasteScarDefects(width=(100, 100), length=(100, 100))
    _, masks = generator(textures(5, 1, (32, 32)), torch.Generator().manual_seed(0))
    # 12.5 of 32 pixels, rounded to 12: 144 pixels at any angle, except for those that the border divides.
    assert (masks.flatten(1).sum(1) - 144).abs().max() <= 12
