"""Normalisation layers by name."""

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
