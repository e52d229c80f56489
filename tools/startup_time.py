"""Measure what this package adds to ``import torch`` and to ``anomalib train --help``, in processor time.

    python tools/startup_time.py --repeats 9

Each repetition is a fresh process that imports torch or anomalib without the package, and then loads the package as its
entry point does; the time that this takes is the share. Limits: 2 ms for ``import torch``, 0.3 s for the command line.
"""

import argparse
import os
import statistics
import subprocess
import sys

IMPORT_TORCH = """
import time, torch
from importlib.metadata import entry_points
entry = next(iter(entry_points(group="torch.backends", name="anomalib_defect_plugins")))
load = time.process_time()
entry.load()()
print(1e3 * (time.process_time() - load))
"""
"""torch itself looks the entry points up, with or without this package."""

COMMAND_LINE = """
import time
import anomalib.cli.cli
start = time.process_time()
from anomalib_defect_plugins.plugins.bridge import connect
connect()
print(1e3 * (time.process_time() - start))
"""

LIMITS_MS = {"import torch": (IMPORT_TORCH, 2.0), "anomalib train --help": (COMMAND_LINE, 300.0)}


def measure_ms(code: str) -> float:
    """Run code in a fresh process, with the package's entry point switched off, and return what it prints."""
    variables = os.environ | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    return float(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """Print minimum and median of each share; the exit status is 1 if a median is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="number of processes for each share")
    repeats = parser.parse_args().repeats
    too_slow = False
    for name, (code, limit) in LIMITS_MS.items():
        measure_ms(code)  # compiles the modules
        shares = [measure_ms(code) for _ in range(repeats)]
        median = statistics.median(shares)
        too_slow |= median > limit
        sys.stdout.write(f"{name}: minimum {min(shares):.2f} ms, median {median:.2f} ms (limit {limit:g} ms)\n")
    return int(too_slow)


if __name__ == "__main__":
    sys.exit(main())
