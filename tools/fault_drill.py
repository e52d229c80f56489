"""Fault drill: train each model of this package under injected faults and compare with an undisturbed run.

    python tools/fault_drill.py --out docs/fault-drill.md

``make drill`` runs this and updates the tables in ``docs/fault-drill.md``. All modules are imported once and every run
is a fork of this process, so that kills occur during training and not during imports.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: threads do not survive a fork
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from attempt import Attempt
from fault_page import write_table
from injuries import FullDisk, KillWorker, PoisonLate
from lightning.pytorch import Callback
from small_models import MODELS, make_data

from anomalib_defect_plugins.testing.runs import differences

DISK_BYTES = 64 * 2**20
"""Size of the file system that is filled."""

BROKEN_SHARE = 0.01
"""Fraction of the files of a data set that are truncated."""

FAULTS = ("SIGKILL", "full disk", "1 % broken files", "worker killed", "non-finite loss")


@dataclass
class Outcome:
    """Outcome of a fault.

    Args:
        good: Whether the run ended as the undisturbed one or with one clear error message, and nothing was lost.
        text: Summary in a few words.
        line: Error message, if any.
    """

    good: bool
    text: str
    line: str = ""


@dataclass
class Drill:
    """Drill of one model.

    Args:
        name: Name of the model.
        data: Folder of the data.
        folder: Empty folder for all output.
        kills: Number of kills.
        rng: Random generator of the times of the kills.
    """

    name: str
    data: Path
    folder: Path
    kills: int
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    seconds: float = field(default=0.0, init=False)
    """Duration of the undisturbed training."""
    expected: dict[str, torch.Tensor] = field(default_factory=dict, init=False)
    """Weights of the undisturbed training."""

    def run(self) -> dict[str, Outcome]:
        """Inject all faults and return the outcome of each."""
        undisturbed = self.attempt("undisturbed")
        child = undisturbed.start()
        begun, start = undisturbed.wait_for_start(child), time.monotonic()
        if begun:
            os.waitpid(child, 0)
        self.seconds = time.monotonic() - start
        weights = undisturbed.weights()
        if weights is None:
            return dict.fromkeys(FAULTS, Outcome(False, "does not train", undisturbed.line))
        self.expected = weights
        faults = (self.killed, self.full_disk, self.broken_files, self.worker_killed, self.non_finite_loss)
        return {name: fault() for name, fault in zip(FAULTS, faults, strict=True)}

    def attempt(self, name: str, *callbacks: Callback, **arguments: Any) -> Attempt:
        """Create a run."""
        return Attempt(self.name, self.data, self.folder / name, callbacks, **arguments)

    def killed(self) -> Outcome:
        """Kill runs at random times and resume each."""
        resumed = hit = 0
        for number in range(self.kills):
            attempt = self.attempt(f"killed-{number}")
            child = attempt.start()
            if attempt.wait_for_start(child):
                time.sleep(self.rng.uniform(0, 0.9 * self.seconds))
                os.kill(child, signal.SIGKILL)
                hit += os.WIFSIGNALED(os.waitpid(child, 0)[1])
            has_checkpoint = attempt.last is not None
            problem = find_damage(attempt.results) or self.resume(attempt)
            if problem:
                return Outcome(False, f"kill {number + 1}: {problem}", attempt.line)
            resumed += has_checkpoint
        return Outcome(True, f"{self.kills} of {self.kills}: same weights ({hit} hit, {resumed} had a point to resume)")

    def resume(self, attempt: Attempt) -> str:
        """Resume a run; return a description of what went wrong, or an empty string."""
        attempt.callbacks = ()
        weights = attempt.wait().weights()
        if weights is None:
            return "resuming fails"
        unequal = differences(weights, self.expected)
        return f"other weights, such as {unequal[0]}" if unequal else find_damage(attempt.results)

    def full_disk(self) -> Outcome:
        """Train with too little disk space for a checkpoint."""
        with small_disk(self.folder / "disk") as mount:
            results = None if mount is None else mount / "results"
            attempt = self.attempt("full", FullDisk(mount), results_folder=results).wait()
            how = "file size limit" if mount is None else "no space left"
            outcome = self.check_error(attempt, ("cannot write checkpoint",), lambda: free_space(mount))
        return Outcome(outcome.good, f"{outcome.text} ({how})", outcome.line)

    def check_error(self, attempt: Attempt, words: Sequence[str], repair: Callable[[], None] | None = None) -> Outcome:
        """Check for one clear error message, undamaged results, and the expected weights after resuming.

        Args:
            attempt: The run with the fault.
            words: Words that the error message must contain.
            repair: Function that removes the cause of the fault, if necessary.
        """
        line = attempt.line
        problem = find_unclear(line, words) or find_damage(attempt.results, partial_files=False)
        if not problem and attempt.last is None:
            problem = "no point to resume from"
        if not problem:
            if repair is not None:
                repair()
            problem = self.resume(attempt)
        return Outcome(not problem, problem or "one line; resumed: same weights", line)

    def broken_files(self) -> Outcome:
        """Truncate one file in a hundred, first in the training split, then in the test split."""
        outcomes = []
        for split in ("train", "test"):
            data = self.folder / f"data-{split}"
            shutil.copytree(self.data, data)
            names = break_files(self.name, data, split)
            attempt = Attempt(self.name, data, self.folder / f"broken-{split}").wait()
            weights, line = attempt.weights(), attempt.line
            if weights is not None and split == "train":
                # A model that trains on one normal image does not read the others.
                problem = "other weights" if differences(weights, self.expected) else ""
                outcomes.append(Outcome(not problem, problem or "file not read: same weights"))
            else:
                is_named = any(name in line for name in names)
                problem = find_unclear(line, ()) or ("" if is_named else "the file is not named")
                outcomes.append(Outcome(not problem, problem or "one line, names the file", line))
        text = " / ".join(dict.fromkeys(outcome.text for outcome in outcomes))
        lines = [outcome.line for outcome in outcomes if outcome.line]
        return Outcome(all(outcome.good for outcome in outcomes), text, lines[0] if lines else "")

    def worker_killed(self) -> Outcome:
        """Kill a data-loading process."""
        attempt = self.attempt("worker", KillWorker(), workers=2).wait()
        weights = attempt.weights()
        if weights is not None:  # the worker had already delivered all its images
            problem = "other weights" if differences(weights, self.expected) else find_damage(attempt.results)
            return Outcome(not problem, problem or "no longer needed: same weights")
        return self.check_error(attempt, ("worker", "num_workers"))

    def non_finite_loss(self) -> Outcome:
        """Train with weights that become NaN."""
        return self.check_error(self.attempt("poisoned", PoisonLate()).wait(), ("loss", "nan"))


def free_space(mount: Path | None) -> None:
    """Remove the file that fills the small file system, if it is mounted."""
    if mount is not None:
        (mount / "filler").unlink()


def find_unclear(line: str, words: Sequence[str]) -> str:
    """Return what is wrong with an error message, or an empty string."""
    if not line.startswith("error: ") or "\n" in line.strip():
        return f"no one-line error, but {(line.strip().splitlines() or ['no output'])[-1]}"
    missing = [word for word in words if word not in line]
    return f"{missing[0]!r} is not in the message" if missing else ""


def find_damage(results: Path, partial_files: bool = True) -> str:
    """Return which file below a folder is damaged, or an empty string.

    Args:
        results: Folder to search.
        partial_files: Whether partial files are accepted; a kill may leave them, an error may not.
    """
    for path in results.rglob("*.part"):
        if not partial_files:
            return f"{path.name} was not removed"
    for path in results.rglob("*.ckpt"):
        try:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            weights = torch.load(path, weights_only=True)["state_dict"]
        except Exception as error:  # noqa: BLE001 - decoders raise many types of errors
            return f"{path.name} is half-written ({type(error).__name__})"
        # Thresholds are NaN before they are computed.
        not_finite = [name for name, value in weights.items() if value.isnan().any() and "post_processor" not in name]
        if broken or not_finite:
            return f"{path.name} is damaged: {broken or not_finite[0]}"
    return ""


def break_files(name: str, root: Path, split: str) -> list[str]:
    """Truncate one in a hundred images of a split, and return their paths."""
    data = make_data(name, root)
    data.prepare_data()
    data.setup()
    images = [str(path) for path in root.rglob("*.png") if "ground_truth" not in path.parts]
    table = getattr(data, f"{split}_data").samples
    # The first normal image is excluded, because HTP-GAN trains on it.
    normal = sorted(table.image_path[table.label_index == 0])[1:]
    chosen = random.Random(0).sample(normal, round(BROKEN_SHARE * len(images)))
    for path in chosen:
        os.truncate(path, Path(path).stat().st_size // 2)
    return chosen


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Yield the mount point of a small file system, or ``None`` if mounting is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "drill", str(folder)]
    if (
        os.geteuid()
        or shutil.which("mount") is None
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def drill(names: Sequence[str], kills: int) -> Iterator[tuple[str, dict[str, Outcome]]]:
    """Run the drill of each model and yield its outcomes, with shortened paths."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_data("htpgan", root / "data").prepare_data()
        for name in names:
            (root / name).mkdir()
            outcomes = Drill(name, root / "data", root / name, kills).run()
            shutil.rmtree(root / name)
            yield (
                name,
                {fault: replace(value, line=value.line.replace(f"{root}/", "")) for fault, value in outcomes.items()},
            )


def main() -> int:
    """Run the drill from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--kills", type=int, default=10, help="kills per model; default: 10")
    parser.add_argument("--out", type=Path, help="Markdown file whose tables are updated")
    parser.add_argument("--json", type=Path, help="JSON file for the outcomes")
    options = parser.parse_args()
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for name, outcomes in drill(options.models, options.kills):
        results[name] = {fault: asdict(outcome) for fault, outcome in outcomes.items()}
        for fault, outcome in outcomes.items():
            print(f"{name}, {fault}: {'' if outcome.good else 'FAILED: '}{outcome.text}", flush=True)
            if outcome.line:
                print(f"    {outcome.line.strip()}", flush=True)
        if options.out:
            write_table(options.out, results[name], name)
    if options.json:
        options.json.write_text(json.dumps(results))
    return 0 if all(outcome["good"] for outcomes in results.values() for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
