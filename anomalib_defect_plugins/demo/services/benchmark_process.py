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

from anomalib_defect_plugins.demo.resources import FOLDER

CONFIGURATION = FOLDER / "embedded.yaml"

STOP_TIMEOUT_S = 10
"""Time that the process gets to stop after an interrupt before it is killed."""

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
    """

    state: str
    names: Sequence[str]
    ended: Sequence[str] = ()
    seconds: float = 0
    error: str = ""
    owner: str = ""


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
            command = [sys.executable, "-m", "anomalib_defect_plugins.cli", "benchmark"]
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - no argument comes from a user
                    [*command, "--config", str(self.configuration), "--out", str(self.out)],
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
            ended = ENDED.findall(output)
            return BenchmarkProgress(self._state(code), self.names, ended, self._elapsed, last_line, self._owner)

    def _state(self, code: int | None) -> str:
        if code is None:
            return "stopping" if self._stopped else "running"
        return "stopped" if self._stopped else "failed" if code else "done"
