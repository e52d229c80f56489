"""Measure OpenVINO latency at 256x256, batch size 1, of this package's models and of PaDiM-ResNet18 in one run.

    python tools/latency.py --models padim htpgan-branches htpgan --threads 1
    python tools/latency.py --models padim sidn --precisions f32 bf16 int8 --sidn model.ckpt --category brick

``htpgan-branches`` is HTP-GAN with the texture-perceiving module of the paper's figure: eight convolutions, each over
the features and one directional map. ``htpgan`` is the module of this package, one convolution with the same output.
``int8`` is quantised as ``anomalib-defects export`` does, with the training images of TextureDefects, half of them with
a drawn defect; layers whose features are compared with centres, as SIDN's encoder, stay in floating point. With a
checkpoint of SIDN, its pixel AUROC on the test images is computed in each precision.

``onestage-small``, ``isugan`` and ``defectgan`` are those with their default arguments, OneStage with the paper's small
encoder.

Graphs are compiled for the shape of the image, as in ``inspect``, ``serve`` and ``benchmark``: graphs of any batch size
take up to 1.4 times as long.

The rate of a model is its FLOPs (additions and multiplications of convolutions and matrix products in the exported
graph) divided by its latency; that of the machine is measured with a matrix product of 2048 x 2048 in OpenVINO.
"""

import math
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

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
from torchmetrics.functional.classification import binary_auroc

from anomalib_defect_plugins import DefectGan, HtpGan, IsuGan, OneStage, Sidn, TextureDefects
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.deployment.quantization import calibration_images
from anomalib_defect_plugins.layers import TexturePerceivingModule
from anomalib_defect_plugins.models.components.checked_export import before_distances, quantisation

SIZE = (256, 256)
"""Height and width of the images."""

MATRIX_SIDE = 2048


Key = tuple[str, str]
"""Model and precision."""


class EightBranches(nn.Module):
    """The texture-perceiving module, eq. 2, branch by branch, with the weights of a folded one."""

    maps: Tensor

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
        """Return cat(P_1 .. P_8)."""
        maps = self.maps.expand(features.shape[0], -1, -1, -1).chunk(8, dim=1)
        branches = [
            conv(torch.cat([features, direction], dim=1)) for conv, direction in zip(self.convs, maps, strict=True)
        ]
        return functional.relu(self.norm(torch.cat(branches, dim=1)))


def padim() -> AnomalibModule:
    """Return a PaDiM fitted to noise: its latency does not depend on the Gaussians."""
    model = Padim(backbone="resnet18", layers=["layer1", "layer2", "layer3"], pre_trained=False, post_processor=False)
    network = cast(Any, model.model)
    for _ in range(4):
        network.train()(torch.rand(64, 3, 256, 256))
    network.fit()
    return model


def eight_branches() -> HtpGan:
    """Return HTP-GAN with unfolded texture-perceiving modules."""
    model = HtpGan(post_processor=False)
    for discriminator in cast(Any, model.model.discriminators):
        discriminator.texture = EightBranches(discriminator.texture)
    return model


MODELS: dict[str, Callable[[Path | None], AnomalibModule]] = {
    "padim": lambda _: padim(),
    "htpgan-branches": lambda _: eight_branches(),
    "htpgan": lambda _: HtpGan(post_processor=False),
    "onestage-small": lambda _: OneStage(width="small", backbone=None, post_processor=False),
    "isugan": lambda _: IsuGan(pre_trained=False, post_processor=False),
    "defectgan": lambda _: DefectGan(post_processor=False),
    "sidn": lambda path: (
        Sidn(pre_trained=False, post_processor=False)
        if path is None
        else Sidn.load_from_checkpoint(path, map_location="cpu")
    ),
}


def calibration(data: TextureDefects) -> nncf.Dataset:
    """Return the normal training images, mirrored, every second one with a drawn defect, one at a time."""
    images = [read_image(path) for path in data.train_data.samples.image_path]
    drawn = calibration_images([(255 * image).round().astype(np.uint8) for image in images], 3 * len(images))
    return nncf.Dataset([image.transpose(2, 0, 1)[None] / np.float32(255) for image in drawn])


def export(model: AnomalibModule) -> openvino.Model:
    """Export a model for one image."""
    with tempfile.TemporaryDirectory() as folder:
        network = openvino_core().read_model(model.eval().to_openvino(folder, input_size=SIZE))
    network.reshape({0: [1, 3, *SIZE]})
    return network


def compile_precision(
    network: openvino.Model, precision: str, data: TextureDefects, threads: int
) -> openvino.CompiledModel:
    """Compile a graph for the CPU, quantized first for ``int8``, without what distances are computed from."""
    if precision == "int8":
        network = nncf.quantize(network, calibration(data), **quantisation(network, before_distances(network)))
    return compile_network(network, "bf16" if precision == "bf16" else "f32", threads)


def compile_network(network: openvino.Model, precision: str, threads: int) -> openvino.CompiledModel:
    """Compile a graph for the CPU, with all threads for one image; 0 threads are those of all cores."""
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    return openvino_core().compile_model(network, "CPU", options | {"INFERENCE_NUM_THREADS": threads})


def compile_matrix_product(precision: str, threads: int) -> openvino.CompiledModel:
    """Return the product of two matrices of ``MATRIX_SIDE`` x ``MATRIX_SIDE`` as a compiled graph."""
    left, right = (ops.parameter([MATRIX_SIDE, MATRIX_SIDE], np.float32) for _ in range(2))
    network = openvino.Model([ops.matmul(left, right, False, False)], [left, right])
    return compile_network(network, precision, threads)


def count_flops(network: openvino.Model) -> int:
    """Count the additions and multiplications of the convolutions and matrix products of a graph of fixed shape."""
    return 2 * sum(map(_multiplications, network.get_ops()))


def _multiplications(node: openvino.Node) -> int:
    kind = node.get_type_name()
    if kind == "MatMul":
        axis = -2 if node.get_attributes()["transpose_a"] else -1
        return int(math.prod(node.get_output_shape(0)) * node.get_input_shape(0)[axis])
    if "Conv" not in kind or kind.startswith("Convert"):
        return 0
    # Weights are (O, I, h, w), those of transposed convolutions (I, O, h, w); groups, if any, come first.
    sites = node.get_input_shape(0) if "Backprop" in kind else node.get_output_shape(0)
    return int(math.prod(sites) * math.prod(list(node.get_input_shape(1))[2 if kind.startswith("Group") else 1 :]))


def time_all(calls: dict[Key, Callable[[], object]], rounds: int, repeats: int) -> dict[Key, list[float]]:
    """Time all calls in turn over several rounds, so that each meets the same load; return seconds per call."""
    times: dict[Key, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            call()
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            times[key].append((time.perf_counter() - start) / repeats)
    return times


def pixel_auroc(network: openvino.CompiledModel, data: TextureDefects) -> float:
    """Compute the pixel AUROC on the test images."""
    maps, masks = [], []
    for index in range(len(data.test_data)):
        item = cast(Any, data.test_data[index])
        maps.append(torch.from_numpy(network(item.image[None].numpy())["anomaly_map"]).flatten())
        masks.append(item.gt_mask.flatten())
    return float(binary_auroc(torch.cat(maps).double(), torch.cat(masks).long()))


def main() -> None:
    """Measure the models, and print a table."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--precisions", nargs="*", choices=["f32", "bf16", "int8"], default=["f32", "bf16"])
    parser.add_argument("--sidn", type=Path, help="checkpoint of SIDN")
    parser.add_argument("--category", default="brick", help="texture for calibration and tests")
    parser.add_argument("--threads", type=int, default=0, help="threads for one image; default: those of all cores")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    data = TextureDefects(category=options.category)
    data.prepare_data()
    data.setup()
    image = np.random.default_rng(0).random((1, 3, *SIZE), dtype=np.float32)
    graphs = {name: export(MODELS[name](options.sidn)) for name in options.models}
    flops = {name: count_flops(network) for name, network in graphs.items()}
    networks: dict[Key, openvino.CompiledModel] = {
        (name, precision): compile_precision(network, precision, data, options.threads)
        for name, network in graphs.items()
        for precision in options.precisions
    }
    matrix = np.random.default_rng(0).random((MATRIX_SIDE, MATRIX_SIDE), dtype=np.float32)
    for precision in {"bf16" if one == "bf16" else "f32" for one in options.precisions}:
        flops["matrix product"] = 2 * MATRIX_SIDE**3
        networks["matrix product", precision] = compile_matrix_product(precision, options.threads)
    calls: dict[Key, Callable[[], object]] = {
        key: partial(network, [matrix, matrix] if network.inputs[1:] else image) for key, network in networks.items()
    }
    columns = ("model", "precision", "median ms", "min ms", "of padim f32", "GFLOP", "GFLOP/s", "of matrix product")
    print(f"| {' | '.join(columns)} | pixel AUROC |\n|{'---|' * (len(columns) + 1)}")
    times_of = time_all(calls, options.rounds, options.repeats)
    padim_median = float(np.median(times_of.get(("padim", "f32"), [math.nan])))
    for (name, precision), seconds in times_of.items():
        median, minimum = float(np.median(seconds)), min(seconds)
        has_auroc = name == "sidn" and options.sidn is not None
        auroc = f"{pixel_auroc(networks[name, precision], data):.4f}" if has_auroc else ""
        times = f"{1e3 * median:.1f} | {1e3 * minimum:.1f} | {median / padim_median:.2f}"
        machine = float(np.median(times_of["matrix product", "bf16" if precision == "bf16" else "f32"]))
        share = flops[name] / median / (flops["matrix product"] / machine)
        rates = f"{flops[name] / 1e9:.2f} | {flops[name] / median / 1e9:.0f} | {100 * share:.0f} %"
        print(f"| {name} | {precision} | {times} | {rates} | {auroc} |")


if __name__ == "__main__":
    main()
