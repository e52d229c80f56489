"""Measure how near ``anomalib-defects inspect`` comes to OpenVINO's ``benchmark_app``, and how much memory it takes.

    python tools/inspect_throughput.py --models padim htpgan --seconds 30 --rounds 3
    python tools/inspect_throughput.py --graph model.xml --images 1000 20000

``benchmark_app`` infers the same random image again and again; ``inspect`` decodes files, 256 x 256, half PNG and half
JPEG, from the disk (from its cache, after the first round), and writes a table. Both compute in the precision that
OpenVINO chooses, in throughput mode, and take turns. The rate of ``inspect`` is that of the images after the first, so
that starting Python and loading the model, which ``benchmark_app`` does not count either, are left out. Memory is the
most that the process had. Give the machine nothing else to do.
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

SIDE, FILES = 256, 100

INSPECT = """
import argparse, sys
from anomalib_defect_plugins.cli.inspect import add_parser
parser = argparse.ArgumentParser()
add_parser(parser.add_subparsers())
options = parser.parse_args(["inspect", *sys.argv[1:]])
options.run(options)
"""


def write_images(folder: Path) -> list[Path]:
    """Write 100 files from the images of TextureDefects."""
    data = TextureDefects()
    data.prepare_data()
    data.setup()
    sources = list(data.test_data.samples.image_path)
    paths = []
    for number in range(FILES):
        with Image.open(sources[number % len(sources)]) as image:
            resized = image.convert("RGB").resize((SIDE, SIDE))
        path = folder / f"{number:03}.{'png' if number % 2 else 'jpg'}"
        (ImageOps.mirror(resized) if number >= len(sources) else resized).save(path)
        paths.append(path)
    return paths


def export(name: str, folder: Path) -> Path:
    """Export a model for images of any size, as ``anomalib export`` does by default."""
    return MODELS[name](None).eval().to_openvino(folder / name)


def tool_rate(graph: Path, seconds: float) -> float:
    """Images a second that ``benchmark_app`` gives."""
    tool = Path(sys.executable).with_name("benchmark_app")
    given = ["-m", graph, "-d", "CPU", "-hint", "throughput", "-shape", f"[1,3,{SIDE},{SIDE}]", "-t", f"{seconds:.0f}"]
    done = subprocess.run([tool, *map(str, given)], capture_output=True, text=True, check=True)
    return float(re.search(r"Throughput: +([\d.]+)", done.stdout)[1])


def run_inspect(graph: Path, paths: list[Path], count: int) -> tuple[float, float]:
    """Inspect so many files, the same again and again: seconds, and MiB of memory at most."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "list.txt"
        files.write_text("\n".join(str(paths[number % len(paths)]) for number in range(count)))
        given = [str(graph), str(files), "--out", f"{folder}/out.parquet", "--threshold", "0.5"]
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", INSPECT, *given], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    if status:
        sys.exit(f"inspect failed on {graph}")
    return seconds, usage.ru_maxrss / 1024


def inspect_rate(graph: Path, paths: list[Path], count: int) -> float:
    """Images a second, without the start."""
    start, whole = (run_inspect(graph, paths, number)[0] for number in (1, 1 + count))
    return count / (whole - start)


def compare(graph: Path, paths: list[Path], seconds: float, rounds: int) -> tuple[float, float, float]:
    """Let both take turns: medians of their rates, and of the ratio of a round."""
    pairs = []
    for _ in range(rounds):
        tool = tool_rate(graph, seconds)
        pairs.append((tool, inspect_rate(graph, paths, max(1, round(tool * seconds)))))
    rates = np.array(pairs)
    return *np.median(rates, axis=0), np.median(rates[:, 1] / rates[:, 0])


def main() -> None:
    """Measure, and print two tables."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=MODELS, default=["padim", "htpgan"])
    parser.add_argument("--graph", type=Path, nargs="*", default=[], help="further exported models")
    parser.add_argument("--seconds", type=float, default=30, help="of a round of each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, nargs="*", default=[1000, 20000], help="for memory, with the first model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder))
        graphs = {name: export(name, Path(folder)) for name in options.models}
        graphs |= {str(path): path for path in options.graph}
        print("| model | benchmark_app, images/s | inspect, images/s | ratio |\n|" + "---|" * 4)
        for name, graph in graphs.items():
            tool, own, ratio = compare(graph, paths, options.seconds, options.rounds)
            print(f"| {name} | {tool:.1f} | {own:.1f} | {ratio:.3f} |", flush=True)
        print("\n| images | memory, MiB | beside the first |\n|" + "---|" * 3)
        first = None
        for count in options.images:
            peak = run_inspect(next(iter(graphs.values())), paths, count)[1]
            first = first or peak
            print(f"| {count} | {peak:.0f} | {peak / first:.3f} |", flush=True)


if __name__ == "__main__":
    main()
