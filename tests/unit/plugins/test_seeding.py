"""Which runs of the command line are seeded, and with which seed."""

import logging
import os
import random
from types import SimpleNamespace
from typing import Any

import anomalib.data
import anomalib.models
import numpy as np
import pytest
import torch
from jsonargparse import Namespace

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.sidn import Sidn
from anomalib_defect_plugins.plugins import seeding

CLASSES = (Sidn, WithDefects)


class OwnSidn(Sidn):
    """A model that a user has derived from one of this package."""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the environment variables that Lightning sets."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "LOCAL_RANK"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)


def named(path: str, **arguments: Any) -> Namespace:
    return Namespace(class_path=path, init_args=Namespace(**arguments))


MODEL = named("anomalib_defect_plugins.Sidn", channels=2)
STOCK_MODEL = named("anomalib.models.Padim", layers=["layer1"])
DATA = named("anomalib_defect_plugins.data.WithDefects", base=named("anomalib.data.Folder"))
STOCK_DATA = named("anomalib.data.Folder", root="anomalib_defect_plugins.Sidn")
NESTED = named("anomalib.data.Folder", inner={"class_path": "anomalib_defect_plugins.WithDefects", "init_args": {}})


@pytest.mark.parametrize(
    ("model", "data", "seeded"),
    [
        (MODEL, STOCK_DATA, True),
        (STOCK_MODEL, DATA, True),
        (STOCK_MODEL, NESTED, True),
        (STOCK_MODEL, STOCK_DATA, False),
        (STOCK_MODEL, None, False),
        (MODEL, "some/images.png", True),
        (STOCK_MODEL, "some/images.png", False),
        (named(f"{__name__}.OwnSidn"), STOCK_DATA, True),
        (named("anomalib.models.sidn"), STOCK_DATA, True),
        ({"class_path": "Sidn"}, {"class_path": "Folder"}, True),  # of ``anomalib benchmark``
        ("sidn", "Folder", True),
        ("Padim", {"class_path": "WithDefects", "init_args": None}, True),
        ({"class_path": "Padim"}, {"class_path": "Folder"}, False),
        (named("not.installed.Model"), STOCK_DATA, False),
    ],
)
def test_runs_with_a_model_or_data_of_a_plugin_are_seeded(model, data, seeded):
    before = torch.get_rng_state()
    seeding._seed_run(Namespace(model=model, data=data, seed_everything=7), CLASSES)
    assert torch.equal(torch.get_rng_state(), before) is not seeded
    assert os.environ.get("PL_SEED_WORKERS") == ("1" if seeded else None)
    if seeded:
        drawn = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002
        torch.manual_seed(7)
        assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_a_number_is_the_seed_and_stays_in_the_configuration(seed):
    config = Namespace(model=MODEL, seed_everything=seed)
    seeding._seed_run(config, CLASSES)
    assert (torch.initial_seed(), config.seed_everything) == (seed, seed)


@pytest.mark.parametrize("seed", [False, None])
def test_a_run_can_do_without_a_seed(seed):
    before = torch.get_rng_state()
    config = Namespace(model=MODEL, seed_everything=seed)
    seeding._seed_run(config, CLASSES)
    assert torch.equal(torch.get_rng_state(), before)
    assert config.seed_everything is seed


def test_true_draws_a_seed_that_the_saved_configuration_contains():
    drawn = []
    for _ in range(2):
        config = Namespace(model=MODEL, seed_everything=True)
        seeding._seed_run(config, CLASSES)
        assert config.seed_everything == torch.initial_seed()
        drawn.append(config.seed_everything)
    assert drawn[0] != drawn[1]


def test_a_further_process_of_a_distributed_run_takes_the_seed_of_the_first(monkeypatch):
    seeding._seed_run(Namespace(model=MODEL, seed_everything=True), CLASSES)
    first = torch.initial_seed()
    monkeypatch.setenv("LOCAL_RANK", "1")
    seeding._seed_run(Namespace(model=MODEL, seed_everything=True), CLASSES)
    assert torch.initial_seed() == first


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused_in_one_line(seed):
    with pytest.raises(InvalidInputError, match=f"^seed_everything is {seed}; it must be true, false or from 0 to"):
        seeding._attempt(lambda: seeding._seed_run(Namespace(model=MODEL, seed_everything=seed), CLASSES))


def test_a_failure_of_seeding_is_one_warning_and_the_command_runs(caplog):
    with caplog.at_level(logging.WARNING):
        seeding._attempt(lambda: seeding._seed_run(SimpleNamespace(), CLASSES))
    assert caplog.messages == [
        "the run is not seeded: AttributeError: 'types.SimpleNamespace' object has no attribute 'get'"
    ]


@pytest.mark.parametrize("module", ["anomalib.cli.cli", "anomalib.pipelines.benchmark.generator"])
def test_a_version_of_anomalib_with_another_command_line_is_left_as_it_is(monkeypatch, module):
    monkeypatch.setitem(seeding.sys.modules, module, SimpleNamespace())
    monkeypatch.setattr(seeding, "after_import", lambda name, callback: callback() if name == module else None)
    seeding.seed_commands(lambda: CLASSES)


def test_the_jobs_of_anomalib_benchmark_are_seeded_before_their_models_are_created():
    from anomalib.pipelines.benchmark.generator import BenchmarkJobGenerator

    model = {
        "class_path": "Sidn",
        "init_args": {"image_size": [32, 32], "backbone": None, "channels": 2, "clusters": 2},
    }
    data = {"class_path": "Folder", "init_args": {"name": "x", "root": "x", "normal_dir": "y"}}
    configuration = {"seed": {"grid": [3, 4, 3]}, "model": model, "data": data}
    jobs = list(BenchmarkJobGenerator("cpu").generate_jobs(configuration, None))
    weights = [next(job.model.parameters()) for job in jobs]
    assert [job.seed for job in jobs] == [3, 4, 3]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert anomalib.models.Sidn is Sidn
    assert anomalib.data.WithDefects is WithDefects
