"""Seeds runs of the ``anomalib`` command that use a plugin.

anomalib 2.7 declares ``seed_everything`` for every subcommand and does not use it; ``anomalib benchmark`` sets its seed
after the models have been created. Runs of anomalib's own models on its own data are left as they are.
"""

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from importlib import import_module
from typing import Any

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.core.import_hook import after_import

logger = logging.getLogger("anomalib_defect_plugins")

MAX_SEED = 2**32 - 1
"""Highest seed that NumPy accepts."""

Classes = Callable[[], tuple[type, ...]]


def seed_commands(classes: Classes) -> None:
    """Make anomalib's command seed runs, as soon as the command is imported.

    Args:
        classes: Function that returns the models and data modules whose runs are seeded.
    """
    after_import("anomalib.cli.cli", lambda: _attempt(lambda: _seed_runs(classes), logging.DEBUG))
    after_import("anomalib.pipelines.benchmark.generator", lambda: _attempt(lambda: _seed_jobs(classes), logging.DEBUG))


def _seed_runs(classes: Classes) -> None:
    """Seed before a subcommand creates model and data."""
    cli: Any = vars(sys.modules["anomalib.cli.cli"])["AnomalibCLI"]
    original = cli.instantiate_classes

    @wraps(original)
    def instantiate_classes(self: Any) -> None:
        _attempt(lambda: _seed_run(self.config[self.config["subcommand"]], classes()))
        original(self)

    cli.instantiate_classes = instantiate_classes


def _seed_jobs(classes: Classes) -> None:
    """Seed before ``anomalib benchmark`` creates the model and data of a job."""
    names = vars(sys.modules["anomalib.pipelines.benchmark.generator"])
    generator, configurations = names["BenchmarkJobGenerator"], names["get_iterator_from_grid_dict"]
    original = generator.generate_jobs

    @wraps(original)
    def generate_jobs(self: Any, args: Any, previous_stage_result: Any) -> Iterator[Any]:
        jobs, remaining = original(self, args, previous_stage_result), configurations(args)
        while True:
            _attempt(lambda: _seed_job(next(remaining, None), classes()))
            try:
                job = next(jobs)
            except StopIteration:
                return
            yield job

    generator.generate_jobs = generate_jobs


def _attempt(seed: Callable[[], object], level: int = logging.WARNING) -> None:
    """Call a function; the command must run without it, whatever fails but the check of the seed."""
    try:
        seed()
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001
        logger.log(level, "the run is not seeded: %s: %s", type(error).__name__, error)


def _seed_run(config: Any, classes: tuple[type, ...]) -> None:
    """Seed a subcommand; the configuration that it saves gets the number."""
    seed = config.get("seed_everything")
    if seed is None or seed is False:
        return
    number = _random_seed() if seed is True else seed
    if _seed(config, number, classes):
        config["seed_everything"] = number


def _seed_job(config: Mapping[str, Any] | None, classes: tuple[type, ...]) -> None:
    if config is not None:
        _seed(config, config["seed"], classes)


def _seed(config: Any, seed: int, classes: tuple[type, ...]) -> bool:
    """Seed Python, NumPy, torch and loader workers if the model or the data is one of ``classes``."""
    found = (cls for name in ("model", "data") for cls in _find_classes(config.get(name)))
    if not any(issubclass(cls, classes) for cls in found):
        return False
    if not 0 <= seed <= MAX_SEED:
        msg = f"seed_everything is {seed}; it must be true, false or from 0 to {MAX_SEED}"
        raise InvalidInputError(msg)
    from lightning import seed_everything

    seed_everything(seed, workers=True)
    return True


def _random_seed() -> int:
    """Draw a seed; further processes of a distributed run take that of the first, which Lightning hands on."""
    inherited = os.environ.get("PL_GLOBAL_SEED") if "LOCAL_RANK" in os.environ else None
    return secrets.randbelow(MAX_SEED + 1) if inherited is None else int(inherited)


def _find_classes(config: Any) -> Iterator[type]:
    """Yield the classes that a part of a configuration names: by ``class_path``, at any depth, or by a short name."""
    if isinstance(config, str):
        yield from _named(config)
    elif isinstance(config, Mapping):
        yield from _imported(str(config.get("class_path") or ""))
        for value in (config.get("init_args") or {}).values():
            if not isinstance(value, str):
                yield from _find_classes(value)
    elif hasattr(config, "as_dict"):  # a Namespace of jsonargparse
        yield from _find_classes(config.as_dict())


def _named(name: str) -> Iterator[type]:
    """Yield the classes of a name in ``anomalib.models`` and ``anomalib.data``."""
    for module in ("anomalib.models", "anomalib.data"):
        found = vars(sys.modules[module]).get(name) if module in sys.modules else None
        if isinstance(found, type):
            yield found


def _imported(path: str) -> Iterator[type]:
    module, _, name = path.rpartition(".")
    if not module:
        yield from _named(name)
        return
    try:
        found = getattr(import_module(module), name, None)
    except ImportError:  # anomalib reports it
        return
    if isinstance(found, type):
        yield found
