"""Loading a checkpoint for synthesis, and the masks of synthetic defects."""

import pytest
import torch

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.defectgan.synthesis import defect_masks, load, reached
from anomalib_defect_plugins.models.isugan import IsuGan
from anomalib_defect_plugins.testing.runs import fit


@pytest.fixture
def checkpoint(tiny, folder, tmp_path):
    fit(tiny(), WithDefects(folder, real=2, masks=False), tmp_path, {})
    return next(tmp_path.rglob("last.ckpt"))


def test_a_loaded_model_synthesizes_and_leaves_torchs_chance_alone(checkpoint):
    before = torch.get_rng_state()
    model = load(checkpoint)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert model.categories == ("abnormal",)
    made = model.synthesize(torch.rand(2, 3, 50, 60), torch.ones(2, 1))
    assert made.images.shape == (2, 3, *model.image_size)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"none\.ckpt is missing; give the model.ckpt that a training"):
        load(tmp_path / "none.ckpt")


def test_a_file_that_is_no_checkpoint_or_a_truncated_one_is_refused(tmp_path, checkpoint):
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    (tmp_path / "short.ckpt").write_bytes(checkpoint.read_bytes()[:2000])
    for name in ("text", "short"):
        with pytest.raises(
            InvalidInputError, match=f"{name}.ckpt is no checkpoint of DefectGan, or of another version .*; give"
        ) as error:
            load(tmp_path / f"{name}.ckpt")
        assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, folder):
    other = IsuGan((24, 32), width=4, residual_blocks=0, involution=False, iterations=1, visualizer=False)
    fit(other, WithDefects(folder, real=2, masks=False), tmp_path, {})
    with pytest.raises(InvalidInputError, match="is no checkpoint of DefectGan"):
        load(next(tmp_path.rglob("last.ckpt")))


def maps(*values: torch.Tensor) -> torch.Tensor:
    return torch.stack(values)[:, None]


def test_masks_are_maps_above_the_threshold_without_specks():
    one = torch.zeros(40, 50)  # 2000 pixels, so a piece of 0.5 per cent has 10
    one[5:10, 5:7] = 0.9
    one[20:23, 20:23] = 0.9
    one[30:34, 30:34] = 0.4
    (mask,) = defect_masks(maps(one), threshold=0.5, min_share=0.005)[:, 0]
    expected = torch.zeros(40, 50, dtype=torch.bool)
    expected[5:10, 5:7] = True
    assert torch.equal(mask, expected)


def test_a_diagonal_hairline_is_one_piece():
    assert defect_masks(maps(torch.eye(40)), min_share=0.02).sum() == 40


def test_masks_that_are_too_large_are_empty_and_leave_others_alone():
    whole, small = torch.ones(10, 10), torch.zeros(10, 10)
    small[:5, :5] = 1
    assert defect_masks(maps(whole, small), max_share=0.3).sum((1, 2, 3)).tolist() == [0, 25]


def test_pieces_stay_whole_that_reach_the_core_and_others_go():
    one = torch.zeros(10, 10)
    one[2, 1:9] = 0.3
    one[2, 4] = 0.8
    one[7, 1:9] = 0.3
    mask = defect_masks(maps(one), 0.25, core=0.5)[0, 0]
    assert mask.sum(1).tolist() == [0, 0, 8, 0, 0, 0, 0, 0, 0, 0]


def test_a_control_map_reaches_nine_pixels_past_its_border_and_a_label_everything():
    control = torch.zeros(1, 2, 40, 40)
    control[0, 1, 20, 20] = 0.5
    rows, columns = reached(control, (40, 40))[0, 0].nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (11, 29, 11, 29)
    labels = torch.tensor([[1.0, 0], [0, 0]])[:, :, None, None]
    assert reached(labels, (4, 6)).float().mean((1, 2, 3)).tolist() == [1, 0]
