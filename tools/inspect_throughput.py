"""Compare the throughput of ``anomalib-defects inspect`` with OpenVINO's ``benchmark_app``, and measure its memory.

    python tools/inspect_throughput.py --models padim htpgan --seconds 30 --rounds 3
    python tools/inspect_throughput.py --graph model.xml --images 1000 20000

``benchmark_app`` infers one random image repeatedly; ``inspect`` decodes files, 256 x 256, half PNG and half JPEG, from
the disk (from its cache after the first round), and writes a table. Both use OpenVINO's default precision and its
throughput mode, and run alternately. The rate of ``inspect`` excludes the first image, and with it the start of Python
and the loading of the model, which ``benchmark_app`` does not count either. Memory is the peak of the process. Use an
otherwise idle machine.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
from latency import MODELS
from PIL import Image, ImageOps

from anomalib_defect_plugins import TextureDefects

SIDE = 256
"""Height and width of the images."""

NUM_FILES = 100

INSPECT = """
import argparse, sys
from anomalib_defect_plugins.cli.inspect import add_parser
parser = argparse.ArgumentParser()
add_parser(parser.add_subparsers())
options = parser.parse_args(["inspect", *sys.argv[1:]])
options.run(options)
"""


def write_images(folder: Path) -> list[Path]:
    """Write 100 image files from the test images of TextureDefects."""
    data = TextureDefects()
    data.prepare_data()
    data.setup()
    sources = list(data.test_data.samples.image_path)
    paths = []
    for number in range(NUM_FILES):
        with Image.open(sources[number % len(sources)]) as image:
            resized = image.convert("RGB").resize((SIDE, SIDE))
        path = folder / f"{number:03}.{'png' if number % 2 else 'jpg'}"
        (ImageOps.mirror(resized) if number >= len(sources) else resized).save(path)
        paths.append(path)
    return paths


def export(name: str, folder: Path) -> Path:
    """Export a model for images of any size, as ``anomalib export`` does by default."""
    return MODELS[name](None).eval().to_openvino(folder / name)


def benchmark_app_rate(graph: Path, seconds: float) -> float:
    """Measure images per second of ``benchmark_app``."""
    command = [str(Path(sys.executable).with_name("benchmark_app")), "-m", str(graph), "-d", "CPU"]
    command += ["-hint", "throughput", "-shape", f"[1,3,{SIDE},{SIDE}]", "-t", f"{seconds:.0f}"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    match = re.search(r"Throughput: +([\d.]+)", result.stdout)
    if match is None:
        sys.exit(f"benchmark_app printed no throughput for {graph}")
    return float(match[1])


def run_inspect(graph: Path, paths: list[Path], count: int) -> tuple[float, float]:
    """Inspect ``count`` files, which repeat ``paths``; return the seconds taken and the peak memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "list.txt"
        files.write_text("\n".join(str(paths[number % len(paths)]) for number in range(count)))
        arguments = [str(graph), str(files), "--out", f"{folder}/out.parquet", "--threshold", "0.5"]
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", INSPECT, *arguments], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    if status:
        sys.exit(f"inspect failed on {graph}")
    return seconds, usage.ru_maxrss / 1024


def inspect_rate(graph: Path, paths: list[Path], count: int) -> float:
    """Measure images per second of ``inspect``, without its start."""
    start, total = (run_inspect(graph, paths, number)[0] for number in (1, 1 + count))
    return count / (total - start)


def compare(graph: Path, paths: list[Path], seconds: float, rounds: int) -> tuple[float, float, float]:
    """Run both alternately; return the median rates of ``benchmark_app`` and ``inspect``, and their median ratio."""
    pairs = []
    for _ in range(rounds):
        reference = benchmark_app_rate(graph, seconds)
        pairs.append((reference, inspect_rate(graph, paths, max(1, round(reference * seconds)))))
    references, rates = np.array(pairs).T
    return float(np.median(references)), float(np.median(rates)), float(np.median(rates / references))


def main() -> None:
    """Measure both, and print two tables."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="*", choices=MODELS, default=["padim", "htpgan"])
    parser.add_argument("--graph", type=Path, nargs="*", default=[], help="further exported models")
    parser.add_argument("--seconds", type=float, default=30, help="time of each tool per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--images",
        type=int,
        nargs="*",
        default=[1000, 20000],
        help="for the memory of the first model",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder))
        graphs = {name: export(name, Path(folder)) for name in options.models}
        graphs |= {str(path): path for path in options.graph}
        print("| model | benchmark_app, images/s | inspect, images/s | ratio |\n|" + "---|" * 4)
        for name, graph in graphs.items():
            reference, rate, ratio = compare(graph, paths, options.seconds, options.rounds)
            print(f"| {name} | {reference:.1f} | {rate:.1f} | {ratio:.3f} |", flush=True)
        print("\n| images | memory, MiB | relative to the first |\n|" + "---|" * 3)
        first = None
        for count in options.images:
            peak = run_inspect(next(iter(graphs.values())), paths, count)[1]
            first = first or peak
            print(f"| {count} | {peak:.0f} | {peak / first:.3f} |", flush=True)


if __name__ == "__main__":
    main()
