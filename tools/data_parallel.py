"""Trains each model in a pair of processes and in one alone, with the same global batches.

Run as a program, it leaves what both saw: ``pair.py OUT``. Everything is imported once; the processes are forks.
"""

import json
import os
import socket
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything computes: threads do not live through a fork

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from anomalib.models import AnomalibModule
from fault_drill import fork
from small_models import make_data, make_model
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import error_line
from anomalib_defect_plugins.models.components.unpaired_loader import paired_loader
from anomalib_defect_plugins.models.defectgan import lightning_model as defectgan
from anomalib_defect_plugins.models.isugan import lightning_model as isugan
from anomalib_defect_plugins.testing.runs import Run, fit, seed_all

GLOBAL_BATCH = 8
STEPS = 6
"""The last batch of this first epoch has the defective images."""

WORLD = 2


class Bar(DefectGenerator):
    """Inverts a bar, always the same.

    Args:
        top: Its first row.
    """

    name = "bar"

    def __init__(self, top: int = 20) -> None:
        self.top = top

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw it."""
        mask = torch.zeros_like(images[:, :1], dtype=torch.bool)
        mask[..., self.top : self.top + 9, 8:40] = True
        return 1 - images, mask


# What a loss may depend on besides images and weights: chance, which each process draws for itself; and what is taken
# from all images of a batch, which are other ones in each process. Without both, losses are means over the images.
EXACT: dict[str, dict[str, Any]] = {
    "sidn": {"clustering": False, "defect_content": Bar(), "defect_share": 1.0},  # P of eq. 15 is the batch's
    "cutpaste": {"translation": 0.0, "jitter": 0.0},
    "onestage": {},
    "isugan": {"involution": False, "pool_size": 0},  # involutions have batch norm
    "defectgan": {"noise_injection": False, "identity_share": 0.0, "penalty_weight": 0.0},
}


class Shared(DistributedSampler):
    """Gives each process its share of what a sampler gives, in order; Lightning would shuffle it."""

    def __iter__(self) -> Iterator[Any]:
        """Take every second one."""
        return islice(self.dataset, self.rank, None, self.num_replicas)


def shared_loader(*arguments: Any, **named: Any) -> DataLoader:
    """Give the paired batches of this process."""
    loader = paired_loader(*arguments, **named)
    sampler = Shared(loader.sampler, shuffle=False)
    return DataLoader(loader.dataset, loader.batch_size, sampler=sampler, collate_fn=loader.collate_fn)


def without_chance(model: AnomalibModule, name: str, devices: int) -> AnomalibModule:
    """Take out of a model what its arguments cannot switch off."""
    if name == "sidn":
        model.augmentation = nn.Identity()
    if name == "cutpaste":
        model.generators = (Bar(), Bar(40))
        head = model.model.head
        model.model.head = nn.Sequential(*(part for part in head if not isinstance(part, nn.BatchNorm1d)))
    isugan.flip = defectgan.flip = lambda images, rng: images
    isugan.paired_loader = defectgan.paired_loader = shared_loader if devices > 1 else paired_loader
    return model


def train(name: str, root: Path, folder: Path, exact: bool, devices: int, **trainer: Any) -> Run:
    """Train a model on its share of the global batches; as it is, for two steps, if they need not be exact."""
    seed_all(0)
    batch = GLOBAL_BATCH // devices
    arguments = {"evaluator": True, **({"iterations": STEPS, **EXACT[name]} if exact else {"iterations": 2})}
    if name in {"isugan", "defectgan"}:
        arguments["batch_size"] = batch
    model = make_model(name, **arguments)
    strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    return fit(
        without_chance(model, name, devices) if exact else model,
        make_data(name, root, batch_size=batch, distributed=devices > 1),
        folder,
        {**strategy, **trainer},
    )


def seen(run: Run) -> dict[str, Any]:
    """Give what a process saw of a training."""
    run.engine.test(run.model, datamodule=run.datamodule, verbose=False)
    metrics = {name: float(value) for name, value in run.engine.trainer.callback_metrics.items()}
    thresholds = {name: float(value) for name, value in run.model.post_processor.named_buffers() if "threshold" in name}
    checksum = sum(float(part.double().abs().sum()) for part in run.model.parameters())
    return {"losses": run.watch.losses, "metrics": metrics, "thresholds": thresholds, "weights": checksum}


def one_of_two(rank: int, port: int, root: Path, out: Path) -> None:
    """Be one process of the pair, as a launcher such as torchrun would start it."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "pair",
        "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": str(WORLD),
        "WORLD_SIZE": str(WORLD),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    found: dict[str, Any] = {}
    for name in EXACT:
        # A folder for each: anomalib gives a run's folder its number in every process, and two may want the same.
        run = train(name, root, out / f"pair-{name}-{rank}", exact=True, devices=WORLD)
        found[name] = seen(run)
        if rank == 0:
            torch.save(run.model.state_dict(), out / f"{name}.pt")
        short = train(name, root, out / f"short-{name}-{rank}", exact=False, devices=WORLD, precision="bf16-mixed")
        found[name]["bf16-mixed"] = short.watch.losses
    found["htpgan"] = refusal(root, out / f"refused-{rank}")
    (out / f"rank{rank}.json").write_text(json.dumps(found))


def refusal(root: Path, out: Path) -> str:
    """Give the line of a model that cannot be trained by a pair."""
    try:
        fit(make_model("htpgan"), make_data("htpgan", root), out, {"strategy": "ddp", "devices": WORLD})
    except Exception as error:  # noqa: BLE001 - whatever it is, it must be one line
        return error_line(error) or repr(error)
    return ""


def alone(root: Path, out: Path) -> None:
    """Train in this process only; and test what the pair has trained."""
    found = {}
    for name in EXACT:
        run = train(name, root, out / f"alone-{name}", exact=True, devices=1)
        found[name] = {"losses": run.watch.losses}
        run.model.load_state_dict(torch.load(out / f"{name}.pt", weights_only=True))
        run.engine.validate(run.model, datamodule=run.datamodule, verbose=False)
        found[name] |= {"of the pair": seen(run)}
    (out / "alone.json").write_text(json.dumps(found))


def main(out: Path) -> None:
    """Start all processes."""
    root = out / "data"
    make_data("htpgan", root).prepare_data()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    children = [fork(partial(one_of_two, rank, port, root, out), out / f"rank{rank}.log") for rank in range(WORLD)]
    codes = [os.waitpid(child, 0)[1] for child in children]
    if any(codes) or os.waitpid(fork(partial(alone, root, out), out / "alone.log"), 0)[1]:
        sys.exit("".join(path.read_text()[-3000:] for path in out.glob("*.log")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
