"""The command ``anomalib-defects benchmark``."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anomalib_defect_plugins.benchmark.job import BenchmarkRuns
    from anomalib_defect_plugins.benchmark.runners import BenchmarkRunner

INTERRUPTED = 130
"""Exit status of a program that Ctrl-C has ended, by convention."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    about = (
        "Train, test and measure every combination of models, data, supervision and seeds that a file asks for. Each "
        "run is kept when it ends. Started again, only what is missing runs; a run that failed is a row with its error."
    )
    command = commands.add_parser(
        "benchmark", help="train and compare models on data sets", description=about, allow_abbrev=False
    )
    command.add_argument("--config", type=Path, required=True, help="what to run, as in configs/benchmark/smoke.yaml")
    command.add_argument("--out", type=Path, help="folder for the results; results/NAME by default")
    command.add_argument("--runner", choices=("serial", "process", "ray"), default="serial", help="what makes the runs")
    command.add_argument(
        "--jobs", type=_positive, help="runs at a time, of process and ray; by default one a GPU, or as many as fit"
    )
    command.add_argument("--address", help="of a Ray cluster; by default Ray is started on this host")
    command.add_argument("--gpus-per-job", type=float, help="of ray: GPUs of a run, such as 0.5; one if there are any")
    command.add_argument(
        "--threads", type=_positive, help="threads of a run; all cores by default. Figures may depend on it slightly"
    )
    command.add_argument("--retry-failed", action="store_true", help="make runs again that failed")
    command.add_argument(
        "--force",
        action="store_true",
        help="make runs again that are done, which replaces them; those of --only, or all",
    )
    command.add_argument("--only", metavar="KEY", action="append", default=[], help="make this run only; repeatable")
    command.set_defaults(run=_benchmark)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")  # noqa: EM102  (argparse shows it as it is)
    return number


def _benchmark(options: argparse.Namespace) -> int:
    _check_options(options)
    from anomalib_defect_plugins.results.folder import TABLE

    generator = _generator(options)
    runner = _runner(options, generator)
    try:
        table = runner.run()
    except KeyboardInterrupt:
        total, missing = len(generator.runs), len(generator.missing())
        sys.stderr.write(f"stopped: {total - missing} of {total} runs are there; the same command goes on\n")
        return INTERRUPTED
    failed = int((table.status == "failed").sum()) if len(table) else 0
    advice = f", {failed} failed: --retry-failed makes these again" if failed else ""
    sys.stdout.write(
        f"results: {generator.setting.root / TABLE} ({len(table)} of {len(generator.runs)} runs{advice})\n"
    )
    return 1 if failed else 0


def _check_options(options: argparse.Namespace) -> None:
    from anomalib_defect_plugins.core.errors import InvalidInputError

    only_for = {"jobs": ("process", "ray"), "address": ("ray",), "gpus_per_job": ("ray",)}
    for name, runners in only_for.items():
        if getattr(options, name) is not None and options.runner not in runners:
            msg = (
                f"--{name.replace('_', '-')} is for --runner {' or '.join(runners)}; leave it out, or change the runner"
            )
            raise InvalidInputError(msg)


def _generator(options: argparse.Namespace) -> "BenchmarkRuns":
    import torch

    from anomalib_defect_plugins.benchmark.configuration import read_benchmark
    from anomalib_defect_plugins.benchmark.job import BenchmarkRuns, Setting
    from anomalib_defect_plugins.core.errors import InvalidInputError

    benchmark = read_benchmark(options.config)
    unknown = sorted(set(options.only) - {run.key for run in benchmark.runs})
    if unknown:
        msg = f"--only {unknown[0]}: {options.config} has no such run; results.csv and run.json show the keys"
        raise InvalidInputError(msg)
    root = options.out or Path("results") / benchmark.name
    runner = options.runner if options.jobs in {None, 1} else f"{options.runner}, {options.jobs} at a time"
    shared = _at_a_time(options, torch.cuda.device_count()) > 1
    setting = Setting(root, str(options.config), options.threads or torch.get_num_threads(), runner, shared)
    return BenchmarkRuns(benchmark, setting, options.retry_failed, options.only, options.force)


def _at_a_time(options: argparse.Namespace, gpus: int) -> float:
    """Runs that may be made on one machine at a time; on a cluster, as many as Ray likes."""
    by_default = {"serial": 1, "process": gpus or 1, "ray": float("inf")}
    return options.jobs or by_default[options.runner]


def _runner(options: argparse.Namespace, generator: "BenchmarkRuns") -> "BenchmarkRunner":
    from anomalib_defect_plugins.benchmark.runners import ProcessRunner, RayRunner, SerialRunner

    if options.runner == "ray":
        return RayRunner(generator, options.address, options.jobs, options.gpus_per_job)
    return SerialRunner(generator) if options.runner == "serial" else ProcessRunner(generator, options.jobs)
