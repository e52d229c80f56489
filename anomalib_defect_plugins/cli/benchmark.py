"""``anomalib-defects benchmark``: train and compare models on data sets."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.stop_signals import INTERRUPTED, TERMINATED, Terminated, handle_stop_signals

if TYPE_CHECKING:
    from anomalib_defect_plugins.benchmark.job import BenchmarkRuns
    from anomalib_defect_plugins.benchmark.runners import BenchmarkRunner


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Train, test and measure every combination of models, data, supervision and seeds in a configuration file. "
        "Each run is saved when it ends. The same command again executes only the missing runs; a failed run is a row "
        "with its error."
    )
    command = commands.add_parser(
        "benchmark", help="train and compare models on data sets", description=about, allow_abbrev=False
    )
    command.add_argument(
        "--config", type=Path, required=True, help="configuration file, such as configs/benchmark/smoke.yaml"
    )
    command.add_argument("--out", type=Path, help="results folder; default: results/NAME")
    command.add_argument(
        "--runner", choices=("serial", "process", "ray"), default="serial", help="how to execute the runs"
    )
    command.add_argument(
        "--jobs",
        type=_positive,
        help="runs at a time, for process and ray; default: one per GPU, or as many as fit on the cluster",
    )
    command.add_argument("--address", help="address of the Ray cluster; by default Ray is started on this machine")
    command.add_argument(
        "--gpus-per-job", type=float, help="GPUs per run, such as 0.5, for ray; default: one if there are any"
    )
    command.add_argument(
        "--threads", type=_positive, help="threads per run, which metrics may depend on slightly; default: all cores"
    )
    command.add_argument("--retry-failed", action="store_true", help="repeat failed runs")
    command.add_argument(
        "--force", action="store_true", help="repeat finished runs and replace them: those of --only, or all"
    )
    command.add_argument(
        "--only", metavar="KEY", action="append", default=[], help="execute only this run; may be repeated"
    )
    command.add_argument("--list", action="store_true", help="print key, status and content of each run, and end")
    command.add_argument(
        "--progress",
        type=Path,
        metavar="FILE",
        help="JSON file for the progress of the current run",
    )
    command.set_defaults(run=_run)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        msg = f"{text} is not 1 or more"
        raise argparse.ArgumentTypeError(msg)
    return number


def _run(options: argparse.Namespace) -> int:
    _check_options(options)
    handle_stop_signals()
    generator: BenchmarkRuns | None = None
    try:
        generator = _generator(options)
        if options.list:
            _print_runs(generator)
            return 0
        table = _runner(options, generator).run()
    except (KeyboardInterrupt, Terminated) as error:
        sys.stderr.write(f"stopped: {_progress(generator)}; the same command continues\n")
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else TERMINATED
    from anomalib_defect_plugins.results.folder import TABLE

    failed = int((table.status == "failed").sum()) if len(table) else 0
    advice = f", {failed} failed: --retry-failed repeats them" if failed else ""
    sys.stdout.write(
        f"results: {generator.settings.root / TABLE} ({len(table)} of {len(generator.runs)} runs{advice})\n"
    )
    return 1 if failed else 0


def _print_runs(generator: "BenchmarkRuns") -> None:
    records = generator.results.records()
    for run in generator.runs:
        status = records[run.key].status if run.key in records else "missing"
        sys.stdout.write(f"{run.key}  {status:7}  {run.label}\n")


def _progress(generator: "BenchmarkRuns | None") -> str:
    if generator is None:
        return "no run was started"
    total, missing = len(generator.runs), len(generator.missing())
    return f"{total - missing} of {total} runs are finished"


def _check_options(options: argparse.Namespace) -> None:
    runners_of = {"jobs": ("process", "ray"), "address": ("ray",), "gpus_per_job": ("ray",)}
    for name, runners in runners_of.items():
        if getattr(options, name) is not None and options.runner not in runners:
            option = f"--{name.replace('_', '-')}"
            msg = f"{option} is for --runner {' or '.join(runners)}; leave it out, or change the runner"
            raise InvalidInputError(msg)


def _generator(options: argparse.Namespace) -> "BenchmarkRuns":
    import torch

    from anomalib_defect_plugins.benchmark.configuration import read_benchmark
    from anomalib_defect_plugins.benchmark.job import BenchmarkRuns, ExecutionSettings

    benchmark = read_benchmark(options.config)
    unknown = sorted(set(options.only) - {run.key for run in benchmark.runs})
    if unknown:
        msg = f"--only {unknown[0]}: {options.config} has no run of this key; --list prints the keys"
        raise InvalidInputError(msg)
    root = options.out or Path("results") / benchmark.name
    runner = options.runner if options.jobs in {None, 1} else f"{options.runner}, {options.jobs} at a time"
    shared = _parallel_runs(options, torch.cuda.device_count()) > 1
    threads = options.threads or torch.get_num_threads()
    progress = options.progress and options.progress.absolute()
    settings = ExecutionSettings(root, str(options.config), threads, runner, shared, progress=progress)
    return BenchmarkRuns(benchmark, settings, options.retry_failed, options.only, options.force)


def _parallel_runs(options: argparse.Namespace, gpus: int) -> float:
    """Return the maximum number of parallel runs on one machine; unlimited on a cluster."""
    defaults = {"serial": 1, "process": gpus or 1, "ray": float("inf")}
    return float(options.jobs or defaults[options.runner])


def _runner(options: argparse.Namespace, generator: "BenchmarkRuns") -> "BenchmarkRunner":
    from anomalib_defect_plugins.benchmark.runners import ProcessRunner, RayRunner, SerialRunner

    if options.runner == "ray":
        return RayRunner(generator, options.address, options.jobs, options.gpus_per_job)
    return SerialRunner(generator) if options.runner == "serial" else ProcessRunner(generator, options.jobs)
