"""Normalisation layers by name."""

from pathlib import Path

import numpy as np
import openvino
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


@pytest.mark.parametrize(("channels", "operation"), [(8, "MVN"), (24, "ReduceMean")])
def test_openvino_normalises_as_torch_and_without_changing_the_layout(
    channels: int, operation: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    images, norm = torch.randn(2, channels, 6, 7) + torch.tensor([3.0, -40]).view(2, 1, 1, 1), NORMS["group"](channels)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    torch.onnx.export(norm.eval(), (images,), tmp_path / "norm.onnx", dynamo=True, verbose=False)
    network = openvino.Core().read_model(tmp_path / "norm.onnx")
    types = [node.get_type_name() for node in network.get_ops()]
    assert operation in types
    assert not {"Transpose", "InstanceNormalization", "GroupNormalization"} & set(types)
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.allclose(compiled(images.numpy())[0], norm(images).detach().numpy(), atol=1e-4)
