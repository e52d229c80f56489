"""Models of a benchmark that are those of a training configuration: their item names its file instead of a class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from anomalib_defect_plugins.core.errors import InvalidInputError


def parse_yaml(text: str) -> Any:
    """Parse YAML as OmegaConf does, without resolving variables."""
    try:
        return OmegaConf.to_container(OmegaConf.create(text))
    except AssertionError:  # OmegaConf's error for a number or a date
        return None


def uses_config(content: Any) -> bool:
    """Return whether a model of a benchmark is that of a training configuration."""
    models = content.get("models") if isinstance(content, dict) else None
    return isinstance(models, list) and any(isinstance(item, dict) and "config" in item for item in models)


def insert_configurations(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Replace each ``config`` among the models by the class and the arguments in that file.

    Args:
        content: Content of a benchmark's file, for which :func:`uses_config` is true.
        folder: Folder of that file.

    Raises:
        InvalidInputError: If a file cannot be read, or does not configure a model.
    """
    models = [
        _insert_configuration(item, folder, f"item {number} of models")
        if isinstance(item, dict) and "config" in item
        else item
        for number, item in enumerate(content["models"], start=1)
    ]
    return {**content, "models": models}


def _insert_configuration(item: Mapping[str, Any], folder: Path, place: str) -> dict[str, Any]:
    if "class_path" in item:
        msg = f"{place} has a config and a class_path; remove one"
        raise InvalidInputError(msg)
    model = _read_model_section(folder, item["config"], f"config of {place}")
    arguments = item.get("init_args") or {}
    if isinstance(arguments, dict):  # other values are reported with the items
        arguments = {**(model.get("init_args") or {}), **arguments}
    others = {key: value for key, value in item.items() if key != "config"}
    return {**others, "class_path": model["class_path"], "init_args": arguments}


def _read_model_section(folder: Path, name: Any, place: str) -> dict[str, Any]:
    """Read the section ``model`` of a configuration of ``anomalib train``."""
    if not isinstance(name, str) or not name:
        msg = f"{place} is {name!r}; it must be the path of a file, relative to {folder}"
        raise InvalidInputError(msg)
    path = folder / name
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OmegaConfBaseException, OSError, UnicodeDecodeError, YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{place}, {path}, cannot be read ({reason})"
        raise InvalidInputError(msg) from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("class_path"), str):
        msg = f"{place}, {path}, has no section model with a class_path; pass a configuration of anomalib train"
        raise InvalidInputError(msg)
    if not isinstance(model.get("init_args") or {}, dict):
        msg = f"init_args of model in {path} is {model['init_args']!r}; it must be a mapping"
        raise InvalidInputError(msg)
    return model
