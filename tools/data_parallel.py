"""Train each model in two data-parallel processes and in a single one, with the same global batches.

    python tools/data_parallel.py OUT

Writes losses, metrics, thresholds and checksums of the weights to ``OUT``, a JSON file per process, which
``tests/faults/test_many_devices.py`` compares. All modules are imported once; the processes are forks.
"""

import json
import os
import socket
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: threads do not survive a fork

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.models.components import AnomalibModule
from attempt import fork
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
"""Training steps; the last batch of the first epoch has the defective images."""

WORLD = 2


class Bar(DefectGenerator):
    """Generator that always inverts the same horizontal bar.

    Args:
        top: First row of the bar.
    """

    name = "bar"

    def __init__(self, top: int = 20) -> None:
        self.top = top

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the bar."""
        mask = torch.zeros_like(images[:, :1], dtype=torch.bool)
        mask[..., self.top : self.top + 9, 8:40] = True
        return 1 - images, mask


# A loss may depend on random numbers, which each process draws separately, and on all images of a batch, which differ
# between processes. Without both, losses are means over the images.
EXACT: dict[str, dict[str, Any]] = {
    # P of eq. 15 is the batch's.
    "sidn": {"clustering": False, "defect_content": Bar(), "defect_share": 1.0, "feature_noise": 0.0},
    "cutpaste": {"translation": 0.0, "jitter": 0.0},
    "onestage": {"augment": False},
    "isugan": {"involution": False, "pool_size": 0},  # involutions have batch norm
    "defectgan": {"noise_injection": False, "identity_share": 0.0, "penalty_weight": 0.0},
}


class OrderedSampler(DistributedSampler[Any]):
    """Sampler that divides the indices of another sampler among processes, in order; Lightning's would shuffle them."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the indices of this process."""
        return islice(cast(Iterable[Any], self.dataset), self.rank, None, self.num_replicas)


def shared_loader(*arguments: Any, **named: Any) -> DataLoader[Any]:
    """Return the loader of this process's share of the paired batches."""
    loader = paired_loader(*arguments, **named)
    sampler = OrderedSampler(cast(Any, loader.sampler), shuffle=False)
    return DataLoader(loader.dataset, loader.batch_size, sampler=sampler, collate_fn=loader.collate_fn)


def without_randomness(model: Any, name: str, devices: int) -> AnomalibModule:
    """Remove randomness and batch statistics that the arguments of a model cannot switch off."""
    if name == "sidn":
        model.augmentation = nn.Identity()
    if name == "cutpaste":
        model.generators = (Bar(), Bar(40))
        head = model.model.head
        model.model.head = nn.Sequential(*(part for part in head if not isinstance(part, nn.BatchNorm1d)))
    for module in cast(tuple[Any, ...], (isugan, defectgan)):
        module.flip = lambda images, rng: images
        module.paired_loader = shared_loader if devices > 1 else paired_loader
    return cast(AnomalibModule, model)


def train(name: str, root: Path, folder: Path, exact: bool, devices: int, **trainer: Any) -> Run:
    """Train a model on its share of the global batches; if not ``exact``, unchanged and for two steps."""
    seed_all(0)
    batch = GLOBAL_BATCH // devices
    arguments = {"evaluator": True, **({"iterations": STEPS, **EXACT[name]} if exact else {"iterations": 2})}
    if name in {"isugan", "defectgan"}:
        arguments["batch_size"] = batch
    model = make_model(name, **arguments)
    strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    return fit(
        without_randomness(model, name, devices) if exact else model,
        make_data(name, root, batch_size=batch, distributed=devices > 1),
        folder,
        {**strategy, **trainer},
    )


def measure(run: Run) -> dict[str, Any]:
    """Test a run, and return its losses, metrics, thresholds and the checksum of its weights."""
    run.engine.test(run.model, datamodule=run.datamodule, verbose=False)
    metrics = {name: float(value) for name, value in run.engine.trainer.callback_metrics.items()}
    buffers = cast(nn.Module, run.model.post_processor).named_buffers()
    thresholds = {name: float(value) for name, value in buffers if "threshold" in name}
    checksum = sum(float(part.double().abs().sum()) for part in run.model.parameters())
    return {"losses": run.watch.losses, "metrics": metrics, "thresholds": thresholds, "weights": checksum}


def train_rank(rank: int, port: int, root: Path, out: Path) -> None:
    """Train as one of two processes, with the environment that a launcher such as torchrun sets."""
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
    results: dict[str, Any] = {}
    for name in EXACT:
        # Separate folders, because anomalib numbers a run's folder in each process, and both may choose the same one.
        run = train(name, root, out / f"pair-{name}-{rank}", exact=True, devices=WORLD)
        results[name] = measure(run)
        if rank == 0:
            torch.save(run.model.state_dict(), out / f"{name}.pt")
        short = train(name, root, out / f"short-{name}-{rank}", exact=False, devices=WORLD, precision="bf16-mixed")
        results[name]["bf16-mixed"] = short.watch.losses
    results["htpgan"] = error_message(root, out / f"refused-{rank}")
    (out / f"rank{rank}.json").write_text(json.dumps(results))


def error_message(root: Path, out: Path) -> str:
    """Return the error of the model that supports one device only."""
    try:
        fit(make_model("htpgan"), make_data("htpgan", root), out, {"strategy": "ddp", "devices": WORLD})
    except Exception as error:  # noqa: BLE001 - any error must be one line
        return error_line(error) or repr(error)
    return ""


def train_single(root: Path, out: Path) -> None:
    """Train in one process, and test the weights of the two."""
    results = {}
    for name in EXACT:
        run = train(name, root, out / f"alone-{name}", exact=True, devices=1)
        results[name] = {"losses": run.watch.losses}
        run.model.load_state_dict(torch.load(out / f"{name}.pt", weights_only=True))
        run.engine.validate(run.model, datamodule=run.datamodule, verbose=False)
        results[name] |= {"of the pair": measure(run)}
    (out / "alone.json").write_text(json.dumps(results))


def main(out: Path) -> None:
    """Run all processes."""
    root = out / "data"
    make_data("htpgan", root).prepare_data()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    children = [fork(partial(train_rank, rank, port, root, out), out / f"rank{rank}.log") for rank in range(WORLD)]
    codes = [os.waitpid(child, 0)[1] for child in children]
    if any(codes) or os.waitpid(fork(partial(train_single, root, out), out / "alone.log"), 0)[1]:
        sys.exit("".join(path.read_text()[-3000:] for path in out.glob("*.log")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
