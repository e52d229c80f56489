"""Where a run was made: versions, hardware, the state of the code; and the memory that it takes."""

import contextlib
import os
import platform
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

PERIOD = 0.05
"""Seconds between two looks at the memory."""


def describe_environment() -> dict[str, Any]:
    """Give versions, hardware, the git commit of this package's checkout if it is one, and the time."""
    names = {"anomalib": "anomalib", "torch": "torch", "openvino": "openvino"}
    names["anomalib_defect_plugins"] = "anomalib-defect-plugins"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        **{name: _version(distribution) for name, distribution in names.items()},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "commit": _commit(Path(__file__).parents[1]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit(folder: Path) -> str | None:
    """Give the commit, with ``-dirty`` if files are changed; ``None`` where these files are in no repository."""
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    return None if tracked is None else _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    try:
        # Arguments are fixed, and git is the one that the user has.
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True)  # noqa: S603, S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None


class PeakMemory:
    """The most memory that this process has held at once while it was watched.

    Attributes:
        host_bytes: Of the host, resident; without processes that read images.
        gpu_bytes: Of the GPU, allocated by PyTorch; ``None`` without one.
    """

    def __init__(self) -> None:
        self.host_bytes = 0
        self.gpu_bytes: int | None = None

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Watch while the block runs."""
        gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        for gpu in gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        ended = threading.Event()
        watcher = threading.Thread(target=self._look, args=(ended,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            self.gpu_bytes = max((torch.cuda.max_memory_allocated(gpu) for gpu in gpus), default=None)

    def _look(self, ended: threading.Event) -> None:
        process = psutil.Process()
        while True:
            self.host_bytes = max(self.host_bytes, process.memory_info().rss)
            if ended.wait(PERIOD):
                return
