"""Compare the run time of the defect generators with a training step of a ResNet18 on the CPU.

    OMP_NUM_THREADS=1 python experiments/generators/cost.py --threads 1

The step is forward, backward and SGD on 16 images of 256x256; defects are drawn on half of them. ``procedural`` is
timed like the others, although it draws in the data-loading workers, in parallel with the training. The variable sets
the threads of numpy, to which ``--threads`` does not apply.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import timm
import torch
from sheet import GENERATORS
from torch.nn import functional

BATCH, SIDE = 16, 256


def training_step(images: torch.Tensor) -> Callable[[], None]:
    """Return a function that trains a ResNet18 for one step."""
    model = timm.create_model("resnet18", pretrained=False, num_classes=2).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    labels = torch.arange(len(images)) % 2

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def median_ms(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Run the functions in turn, under equal load; return the median times in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="number of torch threads")
    parser.add_argument("--rounds", type=int, default=7, help="number of timed rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    images = 0.2 + 0.6 * torch.rand(BATCH, 3, SIDE, SIDE)
    functions: dict[str, Callable[[], object]] = {"training step": training_step(images)}
    for cls in GENERATORS:
        functions[cls.name] = partial(cls(), images[: BATCH // 2])
    times = median_ms(functions, arguments.rounds)
    print("| | ms | % of a training step |\n|---|---|---|")
    for name, value in times.items():
        print(f"| {name} | {value:.1f} | {100 * value / times['training step']:.1f} |")


if __name__ == "__main__":
    main()
