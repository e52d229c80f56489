"""Configuration file of a benchmark: its runs are all combinations of models, data, supervision and seeds.

::

    name: smoke                    # of the results folder
    seeds: [0, 1]
    trainer: {max_epochs: 10}      # arguments of Lightning's trainer, for all models
    models:
      - name: PaDiM                # label; by default the class name
        class_path: Padim
        init_args: {backbone: {grid: [resnet18, resnet50]}}
        supervision: [normal]      # entries of supervision to run on, by name; by default all. The same for data
        trainer: {max_epochs: 1}   # arguments of the trainer for this model
        seeds: [0]                 # instead of those of all models
      - config: ../sidn/paper.yaml # class_path and init_args of the section model of a configuration of anomalib train
        init_args: {iterations: 9} # replaces arguments of the same name
    data:
      - class_path: TextureDefects
        init_args: {category: brick}
    supervision:                   # by default the data unchanged
      - name: normal
      - name: masks
        class_path: WithDefects    # gets the data as its argument base
        init_args: {real: 10}
    measure: {latency: true, seconds: 3, precisions: [FP32, FP16, INT8], keep: {maps: true, model: true}}

Any value among the arguments of an item may be ``{grid: [a, b]}``, as in anomalib's own benchmark: the item is then
repeated with a and with b. Models with the same name must have the same class and arguments; they may differ in data,
supervision, trainer and seeds. The path of a ``config`` is relative to the folder of the benchmark's file; the copy of
that file in the results contains the arguments instead.

``${seed}`` is the seed of the run: with ``seed: ${seed}``, ``WithDefects`` selects other defects for each seed.
``${oc.env:NAME,default}`` reads an environment variable when a run starts; the key of a run depends on the text in the
file, not on the value of the variable.
"""

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from math import inf
from operator import getitem
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from anomalib.models.components import AnomalibModule
from anomalib.pipelines.components.utils import get_iterator_from_grid_dict
from anomalib.utils.config import flatten_dict
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from anomalib_defect_plugins.benchmark.training_configuration import insert_configurations, parse_yaml, uses_config
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.plugins.instantiate import check
from anomalib_defect_plugins.results.run_spec import (
    PRECISIONS,
    ComponentSpec,
    KeepSpec,
    MeasureSpec,
    RunSpec,
    resolve_variables,
)

GRID_SUFFIX = ".grid"
"""End of the dotted name of a list of alternative values."""

RESERVED_TRAINER_ARGUMENTS = {"self", "callbacks", "default_root_dir", "logger", "plugins"}
"""Arguments of Lightning's trainer that the benchmark sets itself."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Args:
        name: Name of the results folder.
        runs: The runs, ordered by model, data, supervision and seed.
        text: Text of the configuration file; without ``config``, and with the arguments that it stands for.
    """

    name: str
    runs: tuple[RunSpec, ...]
    text: str


def read_benchmark(path: Path) -> Benchmark:
    """Read a configuration file, and check it as far as possible without training.

    Raises:
        MissingDataError: If the file does not exist.
        InvalidInputError: If it is invalid; the message names the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = parse_yaml(text)
        if uses_config(content):
            content = insert_configurations(content, path.parent)
            text = OmegaConf.to_yaml(OmegaConf.create(content))
        return Benchmark(_read_name(content), tuple(_read_runs(content)), text)
    except FileNotFoundError as error:
        msg = f"configuration {path} not found; configs/benchmark has examples"
        raise MissingDataError(msg) from error
    except (InvalidInputError, OmegaConfBaseException, OSError, UnicodeDecodeError, YAMLError) as error:
        msg = f"configuration {path}: {' '.join(str(error).split())}"
        raise InvalidInputError(msg) from error


def _read_name(content: Any) -> str:
    if not isinstance(content, dict):
        msg = "it is not a mapping; it needs at least models and data"
        raise InvalidInputError(msg)
    _check_keys(content, {"name", "seeds", "trainer", "models", "data", "supervision", "measure"}, "the top level")
    name = content.get("name")
    if not isinstance(name, str) or not name or name != Path(name).name or name.startswith("."):
        msg = f"name is {name!r}; it must be the name of a folder for the results"
        raise InvalidInputError(msg)
    return name


def _read_runs(content: Mapping[str, Any]) -> list[RunSpec]:
    seeds = _read_seeds(content.get("seeds", [0]))
    trainer = _read_trainer(content.get("trainer", {}))
    measure = _read_measure(content.get("measure", {}))
    supervisions = _read_supervision(content.get("supervision", [{"name": "normal"}]))
    data = _read_data(content)
    runs = [
        RunSpec(model, source, supervision, seed, {**trainer, **of_model}, measure)
        for model, sources, kinds, of_model, own_seeds in _read_models(content, data, supervisions)
        for source in sources
        for supervision in kinds
        for seed in own_seeds or seeds
    ]
    _check_different(runs)
    _check_classes(runs)
    return runs


def _read_data(content: Mapping[str, Any]) -> dict[str, list[ComponentSpec]]:
    """Read the data modules, by the name of their item in the file."""
    data: dict[str, list[ComponentSpec]] = {}
    for item in _read_items(content, "data"):
        for component in expand_grids(item, "data"):
            data.setdefault(item.get("name", component.name), []).append(component)
    _check_unique((component.name for components in data.values() for component in components), "data")
    return data


def _read_models(
    content: Mapping[str, Any],
    data: Mapping[str, list[ComponentSpec]],
    supervisions: Mapping[str, list[ComponentSpec]],
) -> list[tuple[ComponentSpec, list[ComponentSpec], list[ComponentSpec], dict[str, Any], list[int]]]:
    """Read the models, each with its data, kinds of supervision, arguments of the trainer and own seeds, if any."""
    models = [
        (component, _select(item, "data", data), _select(item, "supervision", supervisions), trainer, seeds)
        for item in _read_items(content, "models", {"config", "data", "supervision", "trainer", "seeds"})
        for trainer in [_read_trainer(item.get("trainer", {}))]
        for seeds in [_read_seeds(item["seeds"]) if "seeds" in item else []]
        for component in expand_grids(item, "models")
    ]
    components = [component for component, *_ in models]
    different = [component for index, component in enumerate(components) if component not in components[:index]]
    _check_unique((component.name for component in different), "models")
    return models


def _read_items(content: Mapping[str, Any], section: str, further_keys: Iterable[str] = ()) -> list[dict[str, Any]]:
    items = content.get(section)
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        keys = "a name or a class_path" if section == "supervision" else "a class_path"
        msg = f"{section} must be a list of items, each with {keys}"
        raise InvalidInputError(msg)
    for number, item in enumerate(items, start=1):
        place = f"item {number} of {section}"
        _check_keys(item, {"name", "class_path", "init_args", *further_keys}, place)
        if not isinstance(item.get("init_args") or {}, dict):
            msg = f"init_args in {place} is {item['init_args']!r}; it must be a mapping"
            raise InvalidInputError(msg)
        if "name" in item and not (isinstance(item["name"], str) and item["name"]):
            msg = f"name in {place} is {item['name']!r}; it must be text, in quotes if it is a number"
            raise InvalidInputError(msg)
    return items


def expand_grids(item: Mapping[str, Any], section: str) -> list[ComponentSpec]:
    """Return a component for each combination of an item's grids, with their values in its label."""
    if "class_path" not in item and section != "supervision":
        msg = f"item {item.get('name', item)!r} of {section} has no class_path"
        raise InvalidInputError(msg)
    flat = flatten_dict({name: item[name] for name in ("class_path", "init_args") if item.get(name)})
    varying = [key.removesuffix(GRID_SUFFIX) for key in flat if key.endswith(GRID_SUFFIX)]
    components = []
    for values in get_iterator_from_grid_dict(_hide_misnamed_grids(flat)):
        words = [_describe_value(key, reduce(getitem, key.split("."), values)) for key in varying]
        component = ComponentSpec("", values.get("class_path"), values.get("init_args", {}))
        components.append(replace(component, name=" ".join([_label(item, component, section, varying), *words])))
    if not components:
        msg = f"a grid of item {item.get('name', item['class_path'])!r} of {section} is empty"
        raise InvalidInputError(msg)
    return components


def _hide_misnamed_grids(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Wrap values whose name merely contains "grid" into grids of one value, or anomalib would expand their lists."""
    misnamed = [key for key in flat if "grid" in key and not key.endswith(GRID_SUFFIX)]
    wrapped = {f"{key}{GRID_SUFFIX}": [flat[key]] for key in misnamed}
    return {key: value for key, value in flat.items() if key not in misnamed} | wrapped


def _label(item: Mapping[str, Any], component: ComponentSpec, section: str, varying: Sequence[str]) -> str:
    """Return an item's name; by default that of the class, and the category of data unless a grid adds it."""
    if "name" in item:
        return str(item["name"])
    label = str(component.class_path).rpartition(".")[2]
    has_category = section == "data" and "category" in component.init_args
    if not has_category or "init_args.category" in varying:
        return label
    return f"{label} {component.init_args['category']}"


def _describe_value(key: str, value: Any) -> str:
    """Describe one value of a grid in a label."""
    if isinstance(value, Mapping) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    return value if isinstance(value, str) else f"{key.rpartition('.')[2]}={value}"


def _read_supervision(items: Any) -> dict[str, list[ComponentSpec]]:
    """Read the kinds of supervision, by the name of their item in the file."""
    supervisions: dict[str, list[ComponentSpec]] = {}
    for item in _read_items({"supervision": items}, "supervision"):
        name = item.get("name") or str(item.get("class_path") or "normal")
        if name in supervisions:
            msg = f"supervision has two entries of the name {name!r}; choose another name for one"
            raise InvalidInputError(msg)
        if item.get("init_args") and not item.get("class_path"):
            msg = f"supervision {name!r} has init_args and no class_path; add class_path: WithDefects"
            raise InvalidInputError(msg)
        supervisions[name] = expand_grids({**item, "name": name}, "supervision")
    components = (component for group in supervisions.values() for component in group)
    _check_unique((component.name for component in components), "supervision")
    return supervisions


def _select(item: Mapping[str, Any], section: str, known: Mapping[str, list[ComponentSpec]]) -> list[ComponentSpec]:
    """Return the data or the kinds of supervision that a model names, or all."""
    names = item.get(section, list(known))
    names = [names] if isinstance(names, str) else names
    model = item.get("name", item.get("class_path"))
    if not isinstance(names, list) or not names:
        msg = f"model {model} asks for {section} {names!r}; it must be a list of some of {', '.join(known)}"
        raise InvalidInputError(msg)
    for name in names:
        if name not in list(known):
            msg = f"model {model} asks for {section} {name!r}; it must be one of {', '.join(known)}"
            raise InvalidInputError(msg)
    return [component for name in names for component in known[name]]


def _read_seeds(content: Any) -> list[int]:
    seeds = content if isinstance(content, list) else [content]
    is_valid = bool(seeds) and all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    if not is_valid or len(set(seeds)) < len(seeds):
        msg = f"seeds are {seeds}; they must be different whole numbers from 0 to 2^32 - 1"
        raise InvalidInputError(msg)
    return seeds


def _read_trainer(content: Any) -> dict[str, Any]:
    known = set(inspect.signature(Trainer.__init__).parameters) - RESERVED_TRAINER_ARGUMENTS
    if not isinstance(content, dict):
        msg = f"trainer is {content!r}; it must be a mapping of arguments of Lightning's trainer"
        raise InvalidInputError(msg)
    _check_keys(content, known, "trainer")
    devices = content.get("devices", 1)
    if devices not in (1, "1") and not (isinstance(devices, list) and len(devices) == 1):
        msg = f"devices of trainer is {devices!r}; a run trains on 1; several run at a time with --runner and --jobs"
        raise InvalidInputError(msg)
    if content.get("limit_test_batches") == 0:
        msg = "limit_test_batches of trainer is 0, so that nothing would be measured; leave it out"
        raise InvalidInputError(msg)
    return content


def _read_measure(content: Any) -> MeasureSpec:
    _check_keys(content, {"latency", "precisions", "keep", "seconds"}, "measure")
    keep = content.get("keep", {})
    _check_keys(keep, {"maps", "model"}, "keep of measure")
    for name, value in [("latency", content.get("latency", True)), *keep.items()]:
        if not isinstance(value, bool):
            msg = f"{name} of measure is {value!r}; it must be true or false"
            raise InvalidInputError(msg)
    precisions = content.get("precisions", list(PRECISIONS))
    if not isinstance(precisions, list) or not all(name in PRECISIONS for name in precisions):
        msg = f"precisions of measure are {precisions!r}; choose from {', '.join(PRECISIONS)}"
        raise InvalidInputError(msg)
    seconds = content.get("seconds", MeasureSpec.seconds)
    if type(seconds) not in (int, float) or not 0 < seconds < inf:
        msg = f"seconds of measure is {seconds!r}; it must be the time for each measurement of latency, more than 0"
        raise InvalidInputError(msg)
    # In the order of PRECISIONS, because the order in the file must not change the key of the run.
    ordered = tuple(name for name in PRECISIONS if name in precisions)
    return MeasureSpec(content.get("latency", True), ordered, KeepSpec(**keep), float(seconds))


def _check_keys(content: Any, known: Iterable[str], place: str) -> None:
    if not isinstance(content, dict):
        msg = f"{place} is {content!r}; it must be a mapping"
        raise InvalidInputError(msg)
    unknown = [key for key in content if key not in known]
    if unknown:
        msg = f"{place} has no key {unknown[0]!r}; it takes {', '.join(sorted(known))}"
        raise InvalidInputError(msg)


def _check_unique(labels: Iterable[str], section: str) -> None:
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            msg = f"two items of {section} are called {label!r}; choose another name for one"
            raise InvalidInputError(msg)
        seen.add(label)


def _check_different(runs: Sequence[RunSpec]) -> None:
    seen: dict[str, RunSpec] = {}
    for run in runs:
        other = seen.setdefault(run.key, run)
        if other is not run:
            msg = f"{run.label!r} and {other.label!r} are the same run; remove one"
            raise InvalidInputError(msg)


def _check_classes(runs: Iterable[RunSpec]) -> None:
    """Check that all objects can be created, before hours are spent on the runs before an invalid one."""
    seen: set[str] = set()
    for what, base, specification in _specified_objects(runs):
        content = json.dumps(specification, sort_keys=True, default=str)
        if content not in seen:
            check(base, specification, what)
        seen.add(content)


def _specified_objects(runs: Iterable[RunSpec]) -> Iterator[tuple[str, type, dict[str, Any]]]:
    for run in runs:
        resolve = partial(resolve_variables, seed=0)  # objects that differ in the seed only are checked once
        yield f"model {run.model.name}:", AnomalibModule, resolve(run.model.specification)
        yield f"data {run.data.name}:", AnomalibDataModule, resolve(run.data.specification)
        yield f"supervision {run.supervision.name} of {run.data.name}:", AnomalibDataModule, resolve(run.datamodule)
