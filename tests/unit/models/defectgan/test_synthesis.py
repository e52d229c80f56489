"""Loading of checkpoints for synthesis, and masks of synthetic defects."""

import pytest
import torch

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.models.defectgan.synthesis import affected_region, defect_masks
from anomalib_defect_plugins.models.isugan import IsuGan
from anomalib_defect_plugins.testing.runs import fit


@pytest.fixture
def checkpoint(tiny, folder, tmp_path):
    fit(tiny(), WithDefects(folder, real=2, masks=False), tmp_path, {})
    return next(tmp_path.rglob("last.ckpt"))


def test_a_loaded_model_synthesizes_and_torchs_random_state_is_preserved(checkpoint):
    before = torch.get_rng_state()
    model = DefectGan.load_for_synthesis(checkpoint)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert model.categories == ("abnormal",)
    synthesized = model.synthesize(torch.rand(2, 3, 50, 60), torch.ones(2, 1))
    assert synthesized.images.shape == (2, 3, *model.image_size)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"none\.ckpt is missing; pass the model.ckpt that training"):
        DefectGan.load_for_synthesis(tmp_path / "none.ckpt")


def test_a_file_that_is_not_a_checkpoint_or_truncated_is_refused(tmp_path, checkpoint):
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    (tmp_path / "short.ckpt").write_bytes(checkpoint.read_bytes()[:2000])
    for name in ("text", "short"):
        with pytest.raises(
            InvalidInputError, match=f"{name}.ckpt is not a checkpoint of DefectGan, or is of another version .*; pass"
        ) as error:
            DefectGan.load_for_synthesis(tmp_path / f"{name}.ckpt")
        assert "\n" not in str(error.value)
        assert str(error.value).count("; pass") == 1


def test_a_checkpoint_of_another_model_is_refused(tmp_path, folder):
    settings = {"backbone": None, "width": 4, "residual_blocks": 0, "involution": False, "iterations": 1}
    other = IsuGan((32, 32), visualizer=False, **settings)
    fit(other, WithDefects(folder, real=2, masks=False), tmp_path, {})
    with pytest.raises(InvalidInputError, match="is not a checkpoint of DefectGan"):
        DefectGan.load_for_synthesis(next(tmp_path.rglob("last.ckpt")))


def maps(*values: torch.Tensor) -> torch.Tensor:
    return torch.stack(values)[:, None]


def test_masks_are_maps_above_the_threshold_without_specks():
    values = torch.zeros(40, 50)  # 2000 pixels, so a region of 0.5 per cent has 10
    values[5:10, 5:7] = 0.9
    values[20:23, 20:23] = 0.9
    values[30:34, 30:34] = 0.4
    (mask,) = defect_masks(maps(values), threshold=0.5, min_share=0.005)[:, 0]
    expected = torch.zeros(40, 50, dtype=torch.bool)
    expected[5:10, 5:7] = True
    assert torch.equal(mask, expected)


def test_a_diagonal_hairline_is_one_region():
    assert defect_masks(maps(torch.eye(40)), min_share=0.02).sum() == 40


def test_masks_that_are_too_large_become_empty_and_do_not_affect_others():
    whole, small = torch.ones(10, 10), torch.zeros(10, 10)
    small[:5, :5] = 1
    assert defect_masks(maps(whole, small), max_share=0.3).sum((1, 2, 3)).tolist() == [0, 25]


def test_regions_that_reach_the_core_are_kept_whole_and_others_are_removed():
    values = torch.zeros(10, 10)
    values[2, 1:9] = 0.3
    values[2, 4] = 0.8
    values[7, 1:9] = 0.3
    mask = defect_masks(maps(values), 0.25, core=0.5)[0, 0]
    assert mask.sum(1).tolist() == [0, 0, 8, 0, 0, 0, 0, 0, 0, 0]


def test_a_control_map_reaches_nine_pixels_beyond_its_border_and_a_label_the_whole_image():
    control = torch.zeros(1, 2, 40, 40)
    control[0, 1, 20, 20] = 0.5
    rows, columns = affected_region(control, (40, 40))[0, 0].nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (11, 29, 11, 29)
    labels = torch.tensor([[1.0, 0], [0, 0]])[:, :, None, None]
    assert affected_region(labels, (4, 6)).float().mean((1, 2, 3)).tolist() == [1, 0]
