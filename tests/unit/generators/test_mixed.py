"""Mixed defects: each image's defect is drawn by one of several generators."""

from collections import Counter
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.generators import DefectGenerator, MixedDefects


class _Flat(DefectGenerator):
    """Fills the image with one grey level; not registered."""

    name: ClassVar[str] = "flat"

    def __init__(self, level: float) -> None:
        self.level = level

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        del rng
        return torch.full_like(images, self.level), torch.ones_like(images[:, :1], dtype=torch.bool)


def test_each_image_is_drawn_by_one_generator_and_all_are_equally_likely() -> None:
    mixed = MixedDefects([_Flat(0.2), _Flat(0.4), _Flat(0.6)])
    images, mask = mixed(torch.zeros(900, 1, 32, 32), torch.Generator().manual_seed(0))
    assert mask.all()
    counts = Counter(round(level, 1) for level in images[:, 0, 0, 0].tolist())
    # Binomial with n = 900 and p = 1/3: mean 300, standard deviation 14.1; within five of them.
    assert set(counts) == {0.2, 0.4, 0.6}
    assert all(abs(count - 300) < 71 for count in counts.values())
    assert torch.equal(images, images[:, :, :1, :1].expand_as(images))


def test_generators_may_be_names_and_mappings() -> None:
    mixed = MixedDefects(["noise", {"class_path": "CutPasteDefects", "init_args": {"area": [0.1, 0.2]}}])
    assert [generator.name for generator in mixed.generators] == ["noise", "cutpaste"]
    assert mixed.generators[1].area == (0.1, 0.2)


@pytest.mark.parametrize(
    ("generators", "line"),
    [([], "generators of MixedDefects is empty; name at least one"), (["nois"], "a generator of MixedDefects 'nois'")],
)
def test_invalid_generators_are_refused(generators: list[str], line: str) -> None:
    with pytest.raises(InvalidInputError, match=line):
        MixedDefects(generators)
