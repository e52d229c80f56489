"""Environment of a run: versions, hardware and the git commit; and its peak memory."""

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

POLL_INTERVAL_S = 0.05
"""Time between two samples of the memory."""


def describe_environment() -> dict[str, Any]:
    """Return versions, hardware, the git commit if the package is run from a checkout, and the time."""
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
    """Return the commit, with ``-dirty`` after uncommitted changes; ``None`` if ``folder`` is not tracked by git."""
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    return None if tracked is None else _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), *words]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - fixed arguments
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip() or None


class PeakMemory:
    """Peak memory of this process.

    Attributes:
        host_bytes: Resident host memory, without the processes of data loaders.
        gpu_bytes: Memory allocated by PyTorch on the fullest GPU; ``None`` without a GPU.
    """

    def __init__(self) -> None:
        self.host_bytes = 0
        self.gpu_bytes: int | None = None

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Measure while the block runs."""
        gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        for gpu in gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        ended = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(ended,), daemon=True)
        sampler.start()
        try:
            yield
        finally:
            ended.set()
            sampler.join()
            self.gpu_bytes = max((torch.cuda.max_memory_allocated(gpu) for gpu in gpus), default=None)

    def _sample(self, ended: threading.Event) -> None:
        process = psutil.Process()
        while True:
            self.host_bytes = max(self.host_bytes, process.memory_info().rss)
            if ended.wait(POLL_INTERVAL_S):
                return
