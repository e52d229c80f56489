"""Measure time and memory of OneStage, and print the table of the README beside it.

    python experiments/onestage/cost.py --widths small paper

Each measurement runs in a separate process with random images and batch 1: number of weights, the shorter of two
training steps (forward, backward, Adam), inference in PyTorch, and inference of the exported graph in OpenVINO, in
single precision. Memory is the peak of the process including all libraries. The paper's network takes some minutes on
one thread.
"""

import resource
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from anomalib.engine import Engine

from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.models.onestage import OneStage

SIZES = {"half": (704, 256), "full": (1408, 512)}


def peak() -> float:
    """Return the peak memory of this process in GiB (Linux reports KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def seconds(work: Callable[[], object]) -> float:
    """Time a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def training(width: str, size: tuple[int, int], threads: int) -> tuple[int, float, float]:
    """Return the number of weights, seconds per training step and GiB."""
    torch.set_num_threads(threads)
    model = OneStage(size, width=width, backbone=None)
    optimizer = cast(torch.optim.Optimizer, model.configure_optimizers())
    image, mask = torch.rand(1, 3, *size), torch.rand(1, 1, *size) < 0.01

    def step() -> None:
        optimizer.zero_grad()
        losses = torch.stack(list(model.losses(model.model(image), mask).values()))
        torch.autograd.backward(losses.sum())
        optimizer.step()

    best = min(seconds(step) for _ in range(2))
    return sum(weight.numel() for weight in model.parameters()), best, peak()


def inference(width: str, size: tuple[int, int], threads: int) -> tuple[float, float]:
    """Return seconds and GiB of inference in PyTorch."""
    torch.set_num_threads(threads)
    model = OneStage(size, width=width, backbone=None).model.eval()
    with torch.inference_mode():
        best = min(seconds(lambda: model(torch.rand(1, 3, *size))) for _ in range(2))
    return best, peak()


def export(width: str, size: tuple[int, int], folder: Path) -> Path:
    """Export an untrained model to OpenVINO and return the path."""
    engine = Engine(default_root_dir=folder, accelerator="cpu", logger=False)
    return cast(
        Path, engine.export(OneStage(size, width=width, backbone=None), "openvino", export_root=folder, input_size=size)
    )


def graph(path: Path, size: tuple[int, int], threads: int) -> tuple[float, float]:
    """Return seconds and GiB of inference in OpenVINO."""
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    network = openvino_core().compile_model(path, "CPU", config)
    image = np.random.default_rng(0).random((1, 3, *size), np.float32)
    return min(seconds(lambda: network({0: image})) for _ in range(2)), peak()


def alone(work: Callable[..., Any], *arguments: object) -> Any:
    """Run in a new process, so that its peak memory is measured separately."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def main() -> None:
    """Measure all settings and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", nargs="*", choices=["small", "paper"], default=["small"])
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print("| width | weights | image | a training step | PyTorch | OpenVINO |\n|---|---|---|---|---|---|")
    for width in options.widths:
        for size in (SIZES[name] for name in options.sizes):
            weights, *step = alone(training, width, size, options.threads)
            with tempfile.TemporaryDirectory() as folder:
                path = alone(export, width, size, Path(folder))
                runs = [step, alone(inference, width, size, options.threads), alone(graph, path, size, options.threads)]
            cells = " | ".join(f"{time:.2f} s, {memory:.2f} GiB" for time, memory in runs)
            print(f"| {width} | {weights:,} | {size[0]}x{size[1]} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
