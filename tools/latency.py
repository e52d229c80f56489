"""Measure OpenVINO latency at 256x256, batch 1, of this package's models beside PaDiM-ResNet18, all in one run.

    python tools/latency.py --models padim htpgan-branches htpgan
    python tools/latency.py --models padim sidn --precisions f32 bf16 int8 --sidn model.ckpt --category brick

``htpgan-branches`` is HTP-GAN with the texture-perceiving module as the paper draws it: eight convolutions, each over
the features and one directional map. ``htpgan`` is the module of this package, one convolution with the same output.
``int8`` is post-training quantisation, as ``anomalib export --compression_type INT8_PTQ`` does it, with the training
images of TextureDefects; with a checkpoint of SIDN its pixel AUROC on the test images is measured in each precision.

The rate of a model is its arithmetic (additions and multiplications of convolutions and matrix products in PyTorch) by
its time; that of the machine is a matrix product of 2048 x 2048 by the same processor, as OpenVINO does it.
"""

import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import nncf
import numpy as np
import openvino
import torch
from anomalib.data.utils import read_image
from anomalib.models import Padim
from anomalib.models.components import AnomalibModule
from openvino import opset13 as ops
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.functional.classification import binary_auroc

from anomalib_defect_plugins import HtpGan, Sidn, TextureDefects
from anomalib_defect_plugins.layers import TexturePerceivingModule

SIZE = (256, 256)
SIDE = 2048


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
    model = Padim(backbone="resnet18", layers=["layer1", "layer2", "layer3"], pre_trained=False, post_processor=False)
    for _ in range(4):
        model.model.train()(torch.rand(64, 3, 256, 256))
    model.model.fit()
    return model


def eight_branches() -> HtpGan:
    """Give HTP-GAN with its texture-perceiving modules unfolded."""
    model = HtpGan(post_processor=False)
    for discriminator in model.model.discriminators:
        discriminator.texture = EightBranches(discriminator.texture)
    return model


MODELS: dict[str, Callable[[Path | None], AnomalibModule]] = {
    "padim": lambda _: padim(),
    "htpgan-branches": lambda _: eight_branches(),
    "htpgan": lambda _: HtpGan(post_processor=False),
    "sidn": lambda path: (
        Sidn(post_processor=False) if path is None else Sidn.load_from_checkpoint(path, map_location="cpu")
    ),
}


def calibration(data: TextureDefects) -> nncf.Dataset:
    """Give the normal training images, one at a time."""
    paths = data.train_data.samples.image_path
    return nncf.Dataset([read_image(path, as_tensor=True)[None].numpy() for path in paths])


def compile_model(model: AnomalibModule, precision: str, data: TextureDefects) -> openvino.CompiledModel:
    """Export a model and compile it for the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        network = openvino.Core().read_model(model.eval().to_openvino(folder, input_size=SIZE))
        if precision == "int8":
            network = nncf.quantize(network, calibration(data))
        return compiled(network, "bf16" if precision == "bf16" else "f32")


def compiled(network: openvino.Model, precision: str) -> openvino.CompiledModel:
    """Compile for the CPU, with all its cores for one image."""
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(network, "CPU", options)


def product(precision: str) -> openvino.CompiledModel:
    """Give a matrix product of ``SIDE`` x ``SIDE``."""
    left, right = (ops.parameter([SIDE, SIDE], np.float32) for _ in range(2))
    return compiled(openvino.Model([ops.matmul(left, right, False, False)], [left, right]), precision)


def arithmetic(model: AnomalibModule) -> float:
    """Count the additions and multiplications of an image."""
    with FlopCounterMode(display=False) as counter:
        model.eval().model(torch.rand(1, 3, *SIZE))
    return counter.get_total_flops()


def time_all(calls: dict[object, Callable[[], object]], rounds: int, repeats: int) -> dict[object, list[float]]:
    """Call all in turn, many times, so that each meets the same load: seconds a call."""
    times: dict[object, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            call()
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            times[key].append((time.perf_counter() - start) / repeats)
    return times


def pixel_auroc(network: openvino.CompiledModel, data: TextureDefects) -> float:
    """Pixel AUROC on the test images."""
    maps, masks = [], []
    for item in data.test_data:
        maps.append(torch.from_numpy(network(item.image[None].numpy())["anomaly_map"]).flatten())
        masks.append(item.gt_mask.flatten())
    return float(binary_auroc(torch.cat(maps).double(), torch.cat(masks).long()))


def main() -> None:
    """Measure, and print a table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--precisions", nargs="*", choices=["f32", "bf16", "int8"], default=["f32", "bf16"])
    parser.add_argument("--sidn", type=Path, help="checkpoint of SIDN")
    parser.add_argument("--category", default="brick", help="texture to calibrate and test with")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    data = TextureDefects(category=options.category)
    data.prepare_data()
    data.setup()
    image = np.random.default_rng(0).random((1, 3, *SIZE), dtype=np.float32)
    models = {name: MODELS[name](options.sidn) for name in options.models}
    flops = {name: arithmetic(model) for name, model in models.items()}
    networks = {
        (name, precision): compile_model(model, precision, data)
        for name, model in models.items()
        for precision in options.precisions
    }
    matrix = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
    for precision in {"f32", "bf16"} & set(options.precisions):
        flops["matrix product"] = 2 * SIDE**3
        networks["matrix product", precision] = product(precision)
    calls: dict[object, Callable[[], object]] = {
        key: lambda network=network: network([matrix, matrix] if network.inputs[1:] else image)
        for key, network in networks.items()
    }
    print("| model | precision | median ms | min ms | GFLOP | GFLOP/s | pixel AUROC |\n|" + "---|" * 7)
    for (name, precision), seconds in time_all(calls, options.rounds, options.repeats).items():
        median, least = float(np.median(seconds)), min(seconds)
        scored = name == "sidn" and options.sidn is not None
        auroc = f"{pixel_auroc(networks[name, precision], data):.4f}" if scored else ""
        figures = f"{1e3 * median:.1f} | {1e3 * least:.1f} | {flops[name] / 1e9:.2f} | {flops[name] / median / 1e9:.0f}"
        print(f"| {name} | {precision} | {figures} | {auroc} |")


if __name__ == "__main__":
    main()
