"""The fault drill: each model of this package is hurt while it trains, and has to end as if nothing had happened.

Run as a program, it writes the table of models and faults: ``python tools/fault_drill.py --out docs/fault-drill.md``.
Everything is imported once; the trainings are forks of this process, so that kills hit work and not imports.
"""

import argparse
import gc
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything computes: threads do not live through a fork
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from fault_page import write_table
from injuries import FullDisk, KillWorker, PoisonLate, Started
from lightning.pytorch import Callback
from small_models import MODELS, make_data, make_model

from anomalib_defect_plugins.core.errors import error_line
from anomalib_defect_plugins.testing.runs import SeedByStep, differences, fit, seed_all

ROOM = 64 * 2**20
"""Bytes of the file system that fills up."""

SHARE = 0.01
"""Share of the files of a data set that are broken."""

SEED = 3

FAULTS = ("SIGKILL", "full disk", "1 % broken files", "worker killed", "non-finite loss")


@dataclass
class Outcome:
    """What came of a fault.

    Args:
        good: Whether the model ended as undisturbed, or with one clear line, and nothing was lost.
        text: What it was, in a few words.
        line: The line that the user saw, if any.
    """

    good: bool
    text: str
    line: str = ""


@dataclass
class Attempt:
    """A training in a process of its own.

    Args:
        name: Of the model.
        data: Folder of the data.
        folder: What it leaves: ``results``, ``weights.pt``, ``line`` or ``traceback``, ``log``.
        callbacks: What happens to it.
        workers: Processes that read images.
        results: Where the results go, if elsewhere than in ``folder``.
    """

    name: str
    data: Path
    folder: Path
    callbacks: Sequence[Callback] = ()
    workers: int = 0
    results: Path | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results = self.results or self.folder / "results"

    @property
    def last(self) -> Path | None:
        """The latest point to resume from."""
        found = self.results.rglob("last.ckpt")
        return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)

    def run(self) -> None:
        """Train, from the latest point that there is; for a process of its own."""
        last = self.last
        try:
            seed_all(SEED if last is None else 99)
            callbacks = [Started(self.folder / "started"), SeedByStep(), *self.callbacks]
            model, data = make_model(self.name), make_data(self.name, self.data, workers=self.workers)
            run = fit(model, data, self.results, {}, callbacks, last)
        except BaseException as error:  # noqa: BLE001 - what ends a training is what this is about
            line = error_line(error)
            name, text = ("traceback", traceback.format_exc()) if line is None else ("line", line)
            (self.folder / name).write_text(text)
        else:
            torch.save(run.model.state_dict(), self.folder / "weights.pt")

    def start(self) -> int:
        """Start it, and give the number of its process."""
        for name in ("started", "line", "traceback", "weights.pt"):
            (self.folder / name).unlink(missing_ok=True)
        return fork(self.run, self.folder / "log")

    def wait(self) -> "Attempt":
        """Run it to its end."""
        os.waitpid(self.start(), 0)
        return self

    def wait_for_start(self, child: int) -> bool:
        """Wait until training has begun; false if it ended before."""
        while not (self.folder / "started").exists():
            if os.waitpid(child, os.WNOHANG)[0]:
                return False
            time.sleep(0.002)
        return True

    @property
    def line(self) -> str:
        """The line that the user saw, or the traceback that nobody should see."""
        for name in ("line", "traceback"):
            if (self.folder / name).exists():
                return (self.folder / name).read_text()
        return ""

    def weights(self) -> dict[str, torch.Tensor] | None:
        """The weights that it ended with, if it did."""
        path = self.folder / "weights.pt"
        return torch.load(path, weights_only=True) if path.exists() else None


def fork(work: Callable[[], None], log: Path) -> int:
    """Do something in a child process, whose output goes to a file; it ends with status 1 if that fails."""
    gc.freeze()  # else each child looks through everything that was imported
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        torch.set_num_threads(1)
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - nothing may go on to what the parent does
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


@dataclass
class Drill:
    """The drill of one model.

    Args:
        name: Of the model.
        data: Folder of the data.
        folder: Empty folder for everything.
        kills: How often training is killed.
        chance: Source of the moments.
    """

    name: str
    data: Path
    folder: Path
    kills: int
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def run(self) -> dict[str, Outcome]:
        """Go through all faults."""
        whole = self.attempt("whole")
        child = whole.start()
        begun, start = whole.wait_for_start(child), time.monotonic()
        if begun:
            os.waitpid(child, 0)
        self.seconds = time.monotonic() - start
        self.whole = whole.weights()
        faults = (self.killed, self.full_disk, self.broken_files, self.worker_killed, self.non_finite_loss)
        if self.whole is None:
            return dict.fromkeys(FAULTS, Outcome(False, "does not train", whole.line))
        return {name: fault() for name, fault in zip(FAULTS, faults, strict=True)}

    def attempt(self, name: str, *callbacks: Callback, **more: object) -> Attempt:
        """Prepare a training."""
        return Attempt(self.name, self.data, self.folder / name, callbacks, **more)

    def killed(self) -> Outcome:
        """Kill it at random moments, each time from the start, and resume."""
        resumed = hit = 0
        for number in range(self.kills):
            attempt = self.attempt(f"killed-{number}")
            child = attempt.start()
            if attempt.wait_for_start(child):
                time.sleep(self.chance.uniform(0, 0.9 * self.seconds))
                os.kill(child, signal.SIGKILL)
                hit += os.WIFSIGNALED(os.waitpid(child, 0)[1])
            from_point = attempt.last is not None
            wrong = damaged(attempt.results) or self.goes_on(attempt)
            if wrong:
                return Outcome(False, f"kill {number + 1}: {wrong}", attempt.line)
            resumed += from_point
        return Outcome(True, f"{self.kills} of {self.kills}: same weights ({hit} hit, {resumed} had a point to resume)")

    def goes_on(self, attempt: Attempt) -> str:
        """Train on to the end; say what is wrong with it."""
        attempt.callbacks = ()
        weights = attempt.wait().weights()
        if weights is None:
            return "resuming fails"
        unequal = differences(weights, self.whole)
        return f"other weights, such as {unequal[0]}" if unequal else damaged(attempt.results)

    def full_disk(self) -> Outcome:
        """Let a checkpoint be too large for what is left of the disk."""
        with small_disk(self.folder / "disk") as mount:
            results = None if mount is None else mount / "results"
            attempt = self.attempt("full", FullDisk(mount), results=results).wait()
            how = "file size limit" if mount is None else "no space left"
            wanted = ("cannot write checkpoint",)
            outcome = self.after_a_line(attempt, wanted, lambda: mount and (mount / "filler").unlink())
        return Outcome(outcome.good, f"{outcome.text} ({how})", outcome.line)

    def after_a_line(self, attempt: Attempt, wanted: Sequence[str], mend: Callable[[], object] = bool) -> Outcome:
        """Check that it ended with one line, that nothing is lost, and that it ends as undisturbed when mended."""
        line = attempt.line
        wrong = unclear(line, wanted) or damaged(attempt.results, leftovers=False)
        if not wrong and attempt.last is None:
            wrong = "no point to resume from"
        if not wrong:
            mend()
            wrong = self.goes_on(attempt)
        return Outcome(not wrong, wrong or "one line; resumed: same weights", line)

    def broken_files(self) -> Outcome:
        """Cut one file in a hundred, of those that train and of those that test."""
        found = []
        for split in ("train", "test"):
            data = self.folder / f"data-{split}"
            shutil.copytree(self.data, data)
            names = break_files(self.name, data, split)
            attempt = Attempt(self.name, data, self.folder / f"broken-{split}").wait()
            weights, line = attempt.weights(), attempt.line
            if weights is not None and split == "train":
                # A model that reads one normal image only has no use for the others.
                wrong = "other weights" if differences(weights, self.whole) else ""
                found.append(Outcome(not wrong, wrong or "file not read: same weights"))
            else:
                wrong = unclear(line, ()) or ("" if any(name in line for name in names) else "the file is not named")
                found.append(Outcome(not wrong, wrong or "one line, names the file", line))
        text = " / ".join(dict.fromkeys(outcome.text for outcome in found))
        return Outcome(all(outcome.good for outcome in found), text, next((it.line for it in found if it.line), ""))

    def worker_killed(self) -> Outcome:
        """Kill a process that reads images."""
        attempt = self.attempt("worker", KillWorker(), workers=2).wait()
        weights = attempt.weights()
        if weights is not None:  # it had handed over all its images
            wrong = "other weights" if differences(weights, self.whole) else damaged(attempt.results)
            return Outcome(not wrong, wrong or "not missed any more: same weights")
        return self.after_a_line(attempt, ("worker", "num_workers"))

    def non_finite_loss(self) -> Outcome:
        """Let the weights become NaN."""
        return self.after_a_line(self.attempt("poisoned", PoisonLate()).wait(), ("loss", "nan"))


def unclear(line: str, wanted: Sequence[str]) -> str:
    """Say what is wrong with what the user saw."""
    if not line.startswith("error: ") or "\n" in line.strip():
        return f"no line, but {(line.strip().splitlines() or ['nothing at all'])[-1]}"
    missing = [word for word in wanted if word not in line]
    return f"{missing[0]!r} is not in the line" if missing else ""


def damaged(results: Path, leftovers: bool = True) -> str:
    """Say which file below a folder is half-written; only a kill may leave one that says so of itself by its name."""
    for path in results.rglob("*.part"):
        if not leftovers:
            return f"{path.name} is left"
    for path in results.rglob("*.ckpt"):
        try:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            weights = torch.load(path, weights_only=True)["state_dict"]
        except Exception as error:  # noqa: BLE001 - decoders raise errors of many kinds
            return f"{path.name} is half-written ({type(error).__name__})"
        # Thresholds are not a number until there are some.
        unknown = [name for name, value in weights.items() if value.isnan().any() and "post_processor" not in name]
        if broken or unknown:
            return f"{path.name} holds what no training left: {broken or unknown[0]}"
    return ""


def break_files(name: str, root: Path, split: str) -> list[str]:
    """Cut one in a hundred of the images; gives their paths."""
    data = make_data(name, root)
    data.prepare_data()
    data.setup()
    images = [str(path) for path in root.rglob("*.png") if "ground_truth" not in path.parts]
    table = getattr(data, f"{split}_data").samples
    # Not the first normal one, which HTP-GAN learns from.
    normal = sorted(table.image_path[table.label_index == 0])[1:]
    chosen = random.Random(0).sample(normal, round(SHARE * len(images)))
    for path in chosen:
        os.truncate(path, Path(path).stat().st_size // 2)
    return chosen


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Give the mount point of a small file system, or nothing where none may be mounted."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "drill", str(folder)]
    if (
        os.geteuid()
        or shutil.which("mount") is None
        or subprocess.run(words, capture_output=True, check=False).returncode
    ):
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def drill(names: Sequence[str], kills: int) -> Iterator[tuple[str, dict[str, Outcome]]]:
    """Go through models; gives the outcomes of each."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_data("htpgan", root / "data").prepare_data()
        for name in names:
            (root / name).mkdir()
            outcomes = Drill(name, root / "data", root / name, kills).run()
            shutil.rmtree(root / name)
            yield name, {fault: replace(it, line=it.line.replace(f"{root}/", "")) for fault, it in outcomes.items()}


def main() -> int:
    """Run the drill from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--kills", type=int, default=10, help="kills of each model; 10 by default")
    parser.add_argument("--out", type=Path, help="Markdown file in which the table is written anew")
    parser.add_argument("--json", type=Path, help="file for the outcomes")
    options = parser.parse_args()
    found: dict[str, dict[str, Outcome]] = {}
    for name, outcomes in drill(options.models, options.kills):
        found[name] = outcomes
        for fault, outcome in outcomes.items():
            print(f"{name}, {fault}: {'' if outcome.good else 'FAILED: '}{outcome.text}", flush=True)
            print(f"    {outcome.line.strip()}" if outcome.line else "", end="\n" if outcome.line else "", flush=True)
        if options.out:
            write_table(options.out, {fault: asdict(it) for fault, it in outcomes.items()}, name)
    if options.json:
        options.json.write_text(json.dumps({n: {f: asdict(it) for f, it in o.items()} for n, o in found.items()}))
    return 0 if all(outcome.good for outcomes in found.values() for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
