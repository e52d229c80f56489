"""Normalisation layers by name."""

import pytest
import torch

from anomalib_defect_plugins.layers import NORMS


def test_instance_norm_is_batch_norm_in_training_with_a_batch_of_one() -> None:
    images = torch.randn(1, 16, 6, 7)
    torch.testing.assert_close(NORMS["instance"](16)(images), NORMS["batch"](16).train()(images))


def test_only_batch_norm_depends_on_the_other_images_of_a_batch() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 16, 6, 7)
    for name, build in NORMS.items():
        norm = build(16).train()
        independent = torch.allclose(norm(images)[:1], norm(images[:1]), atol=1e-5)
        assert independent == (name != "batch"), name


def test_the_exported_group_norm_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    images, norm = 5 * torch.randn(2, 24, 6, 7) + 3, NORMS["group"](24)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    expected = norm(images)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(norm(images), expected)
    uniform = torch.full_like(images, 7)
    torch.testing.assert_close(norm(uniform), norm.bias[:, None, None].expand_as(uniform), rtol=0, atol=1e-4)
