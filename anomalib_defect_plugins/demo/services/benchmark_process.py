"""Computes the embedded results in a separate process, for a demo that starts without results."""

import atexit
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from anomalib_defect_plugins.benchmark.progress_file import RunProgress, read_progress
from anomalib_defect_plugins.demo.resources import FOLDER

CONFIGURATION = FOLDER / "embedded.yaml"

STOP_TIMEOUT_S = 10
"""Time that the process gets to stop after an interrupt before it is killed."""

TRAINING_SHARE = 0.9
"""Part of the time of a run that training takes, roughly."""

ENDED = re.compile(r"^\d+ of \d+: (.*)$", re.MULTILINE)
"""Line that the benchmark prints when a run has ended."""


@dataclass(frozen=True)
class BenchmarkProgress:
    """Progress of the process.

    Args:
        state: ``idle`` (not started), ``running``, ``stopping``, ``stopped`` (by a user), ``failed`` or ``done``.
        names: Names of the models, one for each run, in order.
        ended: One line for each run that has ended.
        seconds: Elapsed time.
        error: Last line of the output, which explains a failure.
        owner: Token of the user who has started it.
        run: Progress of the current run, if known.
    """

    state: str
    names: Sequence[str]
    ended: Sequence[str] = ()
    seconds: float = 0
    error: str = ""
    owner: str = ""
    run: RunProgress | None = None

    @property
    def share(self) -> float:
        """Finished part of the work, in [0, 1]; testing and measuring are the last tenth of a run."""
        if self.run is None or len(self.ended) == len(self.names):
            return len(self.ended) / len(self.names)
        current = TRAINING_SHARE * self.run.share if self.run.phase == "training" else TRAINING_SHARE
        return (len(self.ended) + current) / len(self.names)


class BenchmarkProcess:
    """Runs ``anomalib-defects benchmark``; all users of the demo share one process.

    Args:
        out: Results folder.
        configuration: Configuration of the benchmark.
    """

    def __init__(self, out: Path, configuration: Path = CONFIGURATION) -> None:
        self.out = out
        self.configuration = configuration
        models = yaml.safe_load(configuration.read_text(encoding="utf-8"))["models"]
        self.names = [model.get("name", model["class_path"]) for model in models]
        self._folder = tempfile.TemporaryDirectory(prefix="anomalib-defects-log-")
        self._log = Path(self._folder.name) / "log.txt"
        self._run = Path(self._folder.name) / "run.json"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped, self._owner = False, ""
        self._started = self._elapsed = 0.0

    def start(self, owner: str = "") -> None:
        """Start the benchmark, or resume it with the missing runs; without effect while it is running.

        Args:
            owner: Token of the user, who alone may stop it.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            if self._process is None:
                atexit.register(self.close)
            self._stopped, self._started, self._elapsed = False, time.monotonic(), 0.0
            self._owner = owner
            self._run.unlink(missing_ok=True)
            command = [sys.executable, "-m", "anomalib_defect_plugins.cli", "benchmark", "--config"]
            command += [str(self.configuration), "--out", str(self.out), "--progress", str(self._run)]
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - no argument comes from a user
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | {"PYTHONWARNINGS": "ignore"},
                )

    def stop(self) -> None:
        """Interrupt the benchmark; finished runs are kept."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None or self._stopped:
                return
            self._stopped = True
            process.send_signal(signal.SIGINT)
        killer = threading.Timer(STOP_TIMEOUT_S, process.kill)
        killer.daemon = True
        killer.start()

    def close(self) -> None:
        """Stop the process and wait until it has ended."""
        self.stop()
        if self._process is not None:
            self._process.wait()

    def progress(self) -> BenchmarkProgress:
        """Return the progress."""
        with self._lock:
            if self._process is None:
                return BenchmarkProgress("idle", self.names)
            code = self._process.poll()
            if code is None or not self._elapsed:
                self._elapsed = time.monotonic() - self._started
            output = self._log.read_text(encoding="utf-8", errors="replace")
            last_line = (output.strip().splitlines() or [""])[-1]
            return BenchmarkProgress(
                state=self._state(code),
                names=self.names,
                ended=ENDED.findall(output),
                seconds=self._elapsed,
                error=last_line,
                owner=self._owner,
                run=read_progress(self._run),
            )

    def _state(self, code: int | None) -> str:
        if code is None:
            return "stopping" if self._stopped else "running"
        return "stopped" if self._stopped else "failed" if code else "done"
