"""Spatial control: after training on labels of whole images, the network follows a control map of half an image.

The defects are specks all over the image, which a small network learns to generate within a minute.
"""

from typing import ClassVar

import pytest
import torch
from torch.nn import functional

from anomalib_defect_plugins.data import TextureDefects, WithDefects
from anomalib_defect_plugins.generators import DefectGenerator
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.testing.runs import fit, seed_all


class Specks(DefectGenerator):
    """White specks of four pixels a side, all over the image."""

    name: ClassVar[str] = "specks"

    def draw(self, images, rng):
        height, width = images.shape[-2:]
        cells = torch.rand(len(images), 1, height // 4, width // 4, generator=rng) < 0.15
        mask = functional.interpolate(cells.float(), (height, width)).bool()
        return torch.ones_like(images), mask


@pytest.mark.slow
def test_a_control_map_of_one_half_generates_defects_in_that_half_only(tmp_path):
    seed_all(0)
    settings = {"channels": 8, "residual_blocks": 1, "iterations": 250, "critic_updates": 2, "learning_rate": 1e-3}
    settings |= {"batch_size": 4}
    model = DefectGan((32, 32), **settings, identity_share=0.5, evaluator=False, visualizer=False)
    base = TextureDefects(tmp_path / "data", category="gravel", image_size=64)
    data = WithDefects(base, masks=False, synthetic=Specks())
    fit(model, data, tmp_path / "results", {"limit_val_batches": 0})
    images = torch.stack([item.image for item in data.test_data if not item.gt_label][:16])
    control = torch.zeros(16, 1, 32, 32)
    control[..., :16] = 1
    synthesized, maps = model.eval().synthesize(images, control, torch.Generator().manual_seed(0))
    change = (synthesized - model.resized(images)).abs().mean(1, keepdim=True)
    # The control map has an effect on nine pixels beyond its border, see test_torch_model.
    assert maps[..., 25:].mean() < 0.15
    assert change[..., :16].mean() > 2 * change[..., 25:].mean()
    assert change[..., :16].mean() > 0.03
