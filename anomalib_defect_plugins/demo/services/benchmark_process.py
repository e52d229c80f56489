"""Makes the embedded results in a process of its own, for whoever opens the demo without any."""

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

PATIENCE = 10
"""Seconds that the process is given to end by itself."""

ENDED = re.compile(r"^\d+ of \d+: (.*)$", re.MULTILINE)
"""The line of a run that has ended."""


@dataclass(frozen=True)
class Progress:
    """How far the making is.

    Args:
        state: ``idle``: not begun; ``running``; ``stopping`` and ``stopped``: by a person; ``failed``; ``done``.
        names: The models, one for each run, in order.
        ended: A line for each run that has ended.
        seconds: How long it has been going on.
        error: What was said last, if it failed.
    """

    state: str
    names: Sequence[str]
    ended: Sequence[str] = ()
    seconds: float = 0
    error: str = ""


class Maker:
    """Makes the results, once at a time, whoever asks.

    Args:
        out: Folder of the results.
        configuration: What is made.
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
        self._stopped = False
        self._began = self._took = 0.0

    def start(self) -> None:
        """Begin, or go on with what is missing; nothing if it is going on."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            if self._process is None:
                atexit.register(self.close)
            self._stopped, self._began, self._took = False, time.monotonic(), 0.0
            command = [sys.executable, "-m", "anomalib_defect_plugins.cli", "benchmark"]
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from a user
                    [*command, "--config", str(self.configuration), "--out", str(self.out)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | {"PYTHONWARNINGS": "ignore"},
                )

    def stop(self) -> None:
        """Have it stop soon; what is finished is kept."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None or self._stopped:
                return
            self._stopped = True
            process.send_signal(signal.SIGINT)
        killer = threading.Timer(PATIENCE, process.kill)
        killer.daemon = True
        killer.start()

    def close(self) -> None:
        """Stop it, and wait until it has ended."""
        self.stop()
        if self._process is not None:
            self._process.wait()

    def progress(self) -> Progress:
        """Say how far it is."""
        with self._lock:
            if self._process is None:
                return Progress("idle", self.names)
            code = self._process.poll()
            if code is None or not self._took:
                self._took = time.monotonic() - self._began
            text = self._log.read_text(encoding="utf-8", errors="replace")
            last = (text.strip().splitlines() or [""])[-1]
            return Progress(self._state(code), self.names, ENDED.findall(text), self._took, last)

    def _state(self, code: int | None) -> str:
        if code is None:
            return "stopping" if self._stopped else "running"
        return "stopped" if self._stopped else "failed" if code else "done"
