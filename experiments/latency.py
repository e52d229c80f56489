"""Measure OpenVINO latency of HTP-GAN and PaDiM-ResNet18 at 256x256, batch 1, in one run.

    python experiments/htpgan/latency.py

"eight branches" is HTP-GAN with the texture-perceiving module as the paper draws it: eight convolutions, each over the
features and one directional map. "one convolution" is the module of this package, which gives the same output.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import openvino
import torch
from anomalib.models import Padim
from anomalib.models.components import AnomalibModule
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins import HtpGan
from anomalib_defect_plugins.layers import TexturePerceivingModule


class EightBranches(nn.Module):
    """The texture-perceiving module, eq. 2, branch by branch, with the weights of a folded one."""

    def __init__(self, folded: TexturePerceivingModule) -> None:
        super().__init__()
        self.register_buffer("maps", folded.maps)
        self.convs = nn.ModuleList()
        for features, direction in zip(folded.conv.weight.chunk(8), folded.conv_map.weight.chunk(8), strict=True):
            weight = torch.cat([features, direction], dim=1)
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, padding_mode="reflect", bias=False)
            conv.weight = nn.Parameter(weight)
            self.convs.append(conv)
        self.norm = folded.norm

    def forward(self, features: Tensor) -> Tensor:
        """Give cat(P_1 .. P_8)."""
        maps = self.maps.expand(features.shape[0], -1, -1, -1).chunk(8, dim=1)
        branches = [conv(torch.cat([features, t], dim=1)) for conv, t in zip(self.convs, maps, strict=True)]
        return functional.relu(self.norm(torch.cat(branches, dim=1)))


def padim() -> AnomalibModule:
    """Give a PaDiM whose Gaussians are fitted to noise: latency does not depend on their values."""
    model = Padim(backbone="resnet18", layers=["layer1", "layer2", "layer3"], pre_trained=False)
    for _ in range(4):
        model.model.train()(torch.rand(64, 3, 256, 256))
    model.model.fit()
    return model


def eight_branches() -> HtpGan:
    """Give HTP-GAN with its texture-perceiving modules unfolded."""
    model = HtpGan()
    for discriminator in model.model.discriminators:
        discriminator.texture = EightBranches(discriminator.texture)
    return model


def compile_model(model: AnomalibModule, folder: str, precision: str) -> openvino.CompiledModel:
    """Export a model and compile it for the CPU."""
    path = model.eval().to_openvino(folder, input_size=(256, 256))
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(path, "CPU", options)


def main(rounds: int = 20, repeats: int = 10) -> None:
    """Measure all in turn, many times, so that each meets the same load; print the medians."""
    image = np.random.default_rng(0).random((1, 3, 256, 256), dtype=np.float32)
    models = {
        "PaDiM-ResNet18": padim(),
        "HTP-GAN, eight branches": eight_branches(),
        "HTP-GAN, one convolution": HtpGan(),
    }
    compiled = {}
    for name, model in models.items():
        for precision in ("f32", "bf16"):
            with tempfile.TemporaryDirectory() as folder:
                compiled[name, precision] = compile_model(model, str(Path(folder)), precision)
    times = {key: [] for key in compiled}
    for _ in range(rounds):
        for key, network in compiled.items():
            network(image)
            start = time.perf_counter()
            for _ in range(repeats):
                network(image)
            times[key].append((time.perf_counter() - start) / repeats * 1000)
    for (name, precision), values in times.items():
        print(f"{name:28s} {precision:5s} median {np.median(values):6.1f} ms   min {min(values):6.1f} ms")


if __name__ == "__main__":
    main()
