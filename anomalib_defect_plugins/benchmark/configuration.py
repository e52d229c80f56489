"""Reads the YAML file of a benchmark into its runs: models x data x supervision x seeds.

::

    name: smoke                    # of the results folder
    seeds: [0, 1]
    trainer: {max_epochs: 10}      # arguments of Lightning's trainer
    models:
      - name: PaDiM                # a label; by default the name of the class
        class_path: Padim
        init_args: {backbone: {grid: [resnet18, resnet50]}}
        supervision: [normal]      # names of the entries below that it runs on; by default all; and data likewise
    data:
      - class_path: TextureDefects
        init_args: {category: brick}
    supervision:                   # by default the data as it is
      - name: normal
      - name: masks
        class_path: WithDefects    # is given base, the data
        init_args: {real: 10}
    measure: {latency: true, seconds: 3, precisions: [FP32, FP16, INT8], keep: {maps: true, model: true}}

A value anywhere among the arguments of an item may be ``{grid: [a, b]}``, as in anomalib's own benchmark: the item then
stands for one with a and one with b. ``${oc.env:NAME,default}`` reads an environment variable when a run starts; runs
are told apart by what the file says, not by what the variable holds.
"""

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import inf
from operator import getitem
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule
from anomalib.pipelines.components.utils import get_iterator_from_grid_dict
from anomalib.utils.config import flatten_dict
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.plugins.instantiate import check
from anomalib_defect_plugins.results.run_spec import PRECISIONS, Keep, Measure, Part, Run, resolved

GRID = ".grid"
"""End of the dotted name of a value that stands for several."""

OWN_TRAINER_ARGUMENTS = {"self", "callbacks", "default_root_dir", "logger", "plugins"}
"""Arguments of Lightning's trainer that are the benchmark's to set."""


@dataclass(frozen=True)
class Benchmark:
    """What a file asks for.

    Args:
        name: Name of the results folder.
        runs: The runs, in order: by model, data, supervision and seed.
        text: The file.
    """

    name: str
    runs: tuple[Run, ...]
    text: str


def read_benchmark(path: Path) -> Benchmark:
    """Read a configuration file, and check everything in it that can be without training.

    Raises:
        MissingDataError: There is no such file.
        InvalidInputError: It cannot be used; the message names the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
        given = _parse(text)
        return Benchmark(_name(given), tuple(_runs(given)), text)
    except FileNotFoundError as error:
        msg = f"configuration {path} does not exist; configs/benchmark has examples"
        raise MissingDataError(msg) from error
    except (InvalidInputError, OmegaConfBaseException, OSError, UnicodeDecodeError, YAMLError) as error:
        msg = f"configuration {path}: {' '.join(str(error).split())}"
        raise InvalidInputError(msg) from error


def _parse(text: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.create(text))
    except AssertionError:  # what it says to a number, a date or the like
        return None


def _name(given: Any) -> str:
    if not isinstance(given, dict):
        msg = "it holds no mapping; give at least models and data"
        raise InvalidInputError(msg)
    _check_keys(given, {"name", "seeds", "trainer", "models", "data", "supervision", "measure"}, "the top level")
    name = given.get("name")
    if not isinstance(name, str) or not name or name != Path(name).name or name.startswith("."):
        msg = f"name is {name!r}; give the name of a folder for the results"
        raise InvalidInputError(msg)
    return name


def _runs(given: Mapping[str, Any]) -> list[Run]:
    seeds, trainer, measure = _seeds(given), _trainer(given.get("trainer", {})), _measure(given.get("measure", {}))
    supervision = _supervision(given.get("supervision", [{"name": "normal"}]))
    data: dict[str, list[Part]] = {}
    for item in _items(given, "data"):
        for part in _expand(item, "data"):
            data.setdefault(item.get("name", part.name), []).append(part)
    models = [
        (part, _wanted(item, "data", data), _wanted(item, "supervision", supervision))
        for item in _items(given, "models", {"data", "supervision"})
        for part in _expand(item, "models")
    ]
    _check_unique((model.name for model, _, _ in models), "models")
    for where, parts in (("data", data), ("supervision", supervision)):
        _check_unique((part.name for found in parts.values() for part in found), where)
    runs = [
        Run(model, source, kind, seed, trainer, measure)
        for model, sources, kinds in models
        for source in sources
        for kind in kinds
        for seed in seeds
    ]
    _check_different(runs)
    _check_classes(runs)
    return runs


def _items(given: Mapping[str, Any], where: str, more: Iterable[str] = ()) -> list[dict[str, Any]]:
    items = given.get(where)
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        msg = f"{where} must be a list of items, each with a class_path"
        raise InvalidInputError(msg)
    for number, item in enumerate(items, start=1):
        _check_keys(item, {"name", "class_path", "init_args", *more}, f"item {number} of {where}")
        if not isinstance(item.get("init_args") or {}, dict):
            msg = f"init_args in item {number} of {where} is {item['init_args']!r}; it must be a mapping"
            raise InvalidInputError(msg)
        if "name" in item and not (isinstance(item["name"], str) and item["name"]):
            msg = f"name in item {number} of {where} is {item['name']!r}; it must be text, in quotes if it is a number"
            raise InvalidInputError(msg)
    return items


def _expand(item: Mapping[str, Any], where: str) -> list[Part]:
    """Give an item's parts, one for each combination of its grids, which their labels tell apart."""
    if "class_path" not in item and where != "supervision":
        msg = f"item {item.get('name', item)!r} of {where} has no class_path"
        raise InvalidInputError(msg)
    flat = flatten_dict({name: item[name] for name in ("class_path", "init_args") if item.get(name)})
    varying = [key.removesuffix(GRID) for key in flat if key.endswith(GRID)]
    parts = []
    for found in get_iterator_from_grid_dict(_only_grids(flat)):
        words = [_word(key, reduce(getitem, key.split("."), found)) for key in varying]
        part = Part("", found.get("class_path"), found.get("init_args", {}))
        parts.append(replace(part, name=" ".join([_label(item, part, where, varying), *words])))
    if not parts:
        msg = f"a grid of item {item.get('name', item['class_path'])!r} of {where} is empty"
        raise InvalidInputError(msg)
    return parts


def _only_grids(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Make a grid of one value of what only has "grid" in its name: anomalib's would take a list apart."""
    misnamed = {key for key in flat if "grid" in key and not key.endswith(GRID)}
    return {f"{key}{GRID}" if key in misnamed else key: [v] if key in misnamed else v for key, v in flat.items()}


def _label(item: Mapping[str, Any], part: Part, where: str, varying: Sequence[str]) -> str:
    """Give an item's name, by default the class's, with the category of data if that is not told apart anyway."""
    if "name" in item:
        return item["name"]
    label = str(part.class_path).rpartition(".")[2]
    told = where != "data" or "category" not in part.init_args or "init_args.category" in varying
    return label if told else f"{label} {part.init_args['category']}"


def _word(key: str, value: Any) -> str:
    """Name one value of a grid."""
    if isinstance(value, Mapping) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    return value if isinstance(value, str) else f"{key.rpartition('.')[2]}={value}"


def _supervision(items: Any) -> dict[str, list[Part]]:
    """Give the parts of each entry by its name in the file."""
    found: dict[str, list[Part]] = {}
    for item in _items({"supervision": items}, "supervision"):
        name = item.get("name") or str(item.get("class_path") or "normal")
        if name in found:
            msg = f"supervision has two entries of the name {name!r}; give each its own name"
            raise InvalidInputError(msg)
        if item.get("init_args") and not item.get("class_path"):
            msg = f"supervision {name!r} has init_args and no class_path; add class_path: WithDefects"
            raise InvalidInputError(msg)
        found[name] = _expand({**item, "name": name}, "supervision")
    return found


def _wanted(item: Mapping[str, Any], where: str, known: Mapping[str, list[Part]]) -> list[Part]:
    """Give the data or the supervision that a model runs on: what it names, or all."""
    names = item.get(where, list(known))
    names = [names] if isinstance(names, str) else names
    model = item.get("name", item.get("class_path"))
    if not isinstance(names, list) or not names:
        msg = f"model {model} asks for {where} {names!r}; give a list of some of {', '.join(known)}"
        raise InvalidInputError(msg)
    for name in names:
        if name not in list(known):
            msg = f"model {model} asks for {where} {name!r}, which is none of {', '.join(known)}"
            raise InvalidInputError(msg)
    return [part for name in names for part in known[name]]


def _seeds(given: Mapping[str, Any]) -> list[int]:
    seeds = given.get("seeds", [0])
    seeds = seeds if isinstance(seeds, list) else [seeds]
    whole = bool(seeds) and all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    if not whole or len(set(seeds)) < len(seeds):
        msg = f"seeds are {seeds}; give whole numbers from 0 to 2^32 - 1, each once"
        raise InvalidInputError(msg)
    return seeds


def _trainer(given: Any) -> dict[str, Any]:
    known = set(inspect.signature(Trainer.__init__).parameters) - OWN_TRAINER_ARGUMENTS
    if not isinstance(given, dict):
        msg = f"trainer is {given!r}; it must be a mapping of arguments of Lightning's trainer"
        raise InvalidInputError(msg)
    _check_keys(given, known, "trainer")
    devices = given.get("devices", 1)
    if devices not in (1, "1") and not (isinstance(devices, list) and len(devices) == 1):
        msg = f"devices of trainer is {devices!r}; a run trains on 1: several run at a time with --runner and --jobs"
        raise InvalidInputError(msg)
    return given


def _measure(given: Any) -> Measure:
    _check_keys(given, {"latency", "precisions", "keep", "seconds"}, "measure")
    keep = given.get("keep", {})
    _check_keys(keep, {"maps", "model"}, "keep of measure")
    for name, value in [("latency", given.get("latency", True)), *keep.items()]:
        if not isinstance(value, bool):
            msg = f"{name} of measure is {value!r}; it must be true or false"
            raise InvalidInputError(msg)
    precisions = given.get("precisions", list(PRECISIONS))
    if not isinstance(precisions, list) or not all(name in PRECISIONS for name in precisions):
        msg = f"precisions of measure are {precisions!r}; choose from {', '.join(PRECISIONS)}"
        raise InvalidInputError(msg)
    seconds = given.get("seconds", Measure.seconds)
    if type(seconds) not in (int, float) or not 0 < seconds < inf:
        msg = f"seconds of measure is {seconds!r}; give the time for each figure of latency, more than 0"
        raise InvalidInputError(msg)
    # In the order of PRECISIONS: which is measured first makes no other run.
    ordered = tuple(name for name in PRECISIONS if name in precisions)
    return Measure(given.get("latency", True), ordered, Keep(**keep), float(seconds))


def _check_keys(given: Any, known: Iterable[str], where: str) -> None:
    if not isinstance(given, dict):
        msg = f"{where} is {given!r}; it must be a mapping"
        raise InvalidInputError(msg)
    unknown = [key for key in given if key not in known]
    if unknown:
        msg = f"{where} has no key {unknown[0]!r}; it takes {', '.join(sorted(known))}"
        raise InvalidInputError(msg)


def _check_unique(labels: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            msg = f"two items of {where} are called {label!r}; give each its own name"
            raise InvalidInputError(msg)
        seen.add(label)


def _check_different(runs: Sequence[Run]) -> None:
    seen: dict[str, Run] = {}
    for run in runs:
        other = seen.setdefault(run.key, run)
        if other is not run:
            msg = f"{run.label!r} and {other.label!r} are the same run; take one out"
            raise InvalidInputError(msg)


def _check_classes(runs: Iterable[Run]) -> None:
    """Refuse what no object can be made of, before hours are spent on what comes before it."""
    seen: set[str] = set()
    for what, base, specification in _objects(runs):
        content = json.dumps(specification, sort_keys=True, default=str)
        if content not in seen:
            check(base, resolved(specification), what)
        seen.add(content)


def _objects(runs: Iterable[Run]) -> Iterator[tuple[str, type, dict[str, Any]]]:
    for run in runs:
        yield f"model {run.model.name}:", AnomalibModule, run.model.specification
        yield f"data {run.data.name}:", AnomalibDataModule, run.data.specification
        yield f"supervision {run.supervision.name} of {run.data.name}:", AnomalibDataModule, run.datamodule
