"""What a bundle says about its model: ``metadata.json``, the model card, and the files of OpenVINO Model Server."""

import contextlib
import hashlib
import inspect
import json
import math
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from anomalib_defect_plugins.benchmark.environment import describe_environment
from anomalib_defect_plugins.core.files import write_text
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.deployment.agreement import Agreement
from anomalib_defect_plugins.inference.bundle import CARD, FORMAT, GRAPH, METADATA, ONNX, hash_graph
from anomalib_defect_plugins.inference.graph_checks import NORMALIZED_THRESHOLD, read_note

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule
    from anomalib.models.components import AnomalibModule

SERVER_FOLDER = "model_server"
"""Folder with the layout and configuration of OpenVINO Model Server."""

MAX_CONFIG_DEPTH = 4
"""Folders above a checkpoint that are searched for the configuration of its training."""


class Origin(NamedTuple):
    """Where a bundle comes from.

    Args:
        model: The model.
        datamodule: Data module of the images that the graph was checked on.
        checkpoint: File of the model, if it was loaded from one.
        size: Height and width of the images that the graph takes; ``None`` for any.
        operating_point: Record of the operating point in the checkpoint; empty if there is none.
    """

    model: "AnomalibModule"
    datamodule: "AnomalibDataModule"
    checkpoint: Path | None
    size: tuple[int, int] | None
    operating_point: Mapping[str, Any] = MappingProxyType({})


def write_description(folder: Path, origin: Origin, agreement: Agreement) -> None:
    """Write the metadata, the model card and the files of OpenVINO Model Server to a bundle with its graphs."""
    _write_texts(folder, describe(folder, origin, agreement))


def _write_texts(folder: Path, metadata: dict[str, Any]) -> None:
    write_text(folder / METADATA, json.dumps(metadata, indent=2, allow_nan=False) + "\n")
    write_text(folder / CARD, render_card(metadata))
    _write_server_files(folder, metadata["model"]["name"])


def replace_thresholds(folder: Path, metadata: dict[str, Any], record: Mapping[str, Any]) -> None:
    """Write the description of a bundle again, whose graphs have been given another threshold.

    Args:
        folder: The bundle.
        metadata: Its metadata before.
        record: Record of the operating point; see ``choose_threshold.Choice``.
    """
    is_normalized = (read_note(openvino_core().read_model(folder / GRAPH)) or {}).get("normalized")
    own = {kind: record.get(f"{kind}_threshold") for kind in ("image", "pixel")}
    own["image"] = own["pixel"] if own["image"] is None else own["image"]
    if is_normalized:
        own = dict.fromkeys(own, NORMALIZED_THRESHOLD)
    metadata = {
        **metadata,
        "hash": hash_graph(folder / GRAPH),
        "files": {name: _digest(folder / name) for name in metadata["files"]},
        "thresholds": {**own, "raw": None, "origin": _origin_of(record)},
        "operating_point": dict(record),
    }
    shutil.rmtree(folder / SERVER_FOLDER, ignore_errors=True)
    _write_texts(folder, metadata)


def _origin_of(record: Mapping[str, Any]) -> str:
    images = f"{record['good']} good and {counted(record['bad'], 'defective image')}"
    return f"anomalib-defects threshold, {record['rule']}, on {images}"


def describe(folder: Path, origin: Origin, agreement: Agreement) -> dict[str, Any]:
    """Return the metadata of a bundle.

    Args:
        folder: The bundle, with its graphs.
        origin: Where it comes from.
        agreement: Comparison of its graph with PyTorch.
    """
    model, size = origin.model, origin.size
    environment, thresholds = describe_environment(), _thresholds(model)
    if origin.operating_point:
        thresholds["origin"] = _origin_of(origin.operating_point)
    return {
        FORMAT: 1,
        "hash": hash_graph(folder / GRAPH),
        "files": {name: _digest(folder / name) for name in (GRAPH, "model.bin", ONNX)},
        "created": environment.pop("date"),
        "model": {"name": type(model).__name__, "class_path": _class_path(model), "arguments": _arguments(model)},
        "precision": agreement.precision,
        "input": {
            "name": "image",
            "layout": "NHWC",
            "type": "uint8",
            "channels": "RGB",
            "batch": 1 if agreement.precision.startswith("INT8") else None,
            "height": size and size[0],
            "width": size and size[1],
        },
        "outputs": {
            "pred_score": "(N,), float32: score",
            "pred_label": "(N,), boolean: whether the image is defective; only with thresholds",
            "anomaly_map": "(N, 1, h, w), float32, of the size that the model works at",
            "pred_mask": "(N, 1, h, w), boolean: defective pixels; only with thresholds",
        },
        "thresholds": thresholds,
        **({"operating_point": dict(origin.operating_point)} if origin.operating_point else {}),
        "classes": ["normal", "defective"],
        "data": {
            **_data(origin.datamodule),
            "trained_test_images": count_trained_tests(origin.datamodule, origin.checkpoint),
        },
        "training": _training(model, origin.datamodule, origin.checkpoint),
        "weights": dict(_weights(model)),
        "check": {name: _finite(value) for name, value in vars(agreement).items()},
        "versions": environment,
    }


def render_card(metadata: Mapping[str, Any]) -> str:
    """Return the model card, in Markdown."""
    from jinja2 import Environment, StrictUndefined

    template = files("anomalib_defect_plugins.deployment").joinpath("templates/model_card.md.jinja")
    # A card is Markdown, not a page; autoescaping would change quotation marks in commands.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    return environment.from_string(template.read_text(encoding="utf-8")).render(metadata) + "\n"


def _thresholds(model: "AnomalibModule") -> dict[str, Any]:
    """Return the thresholds of raw scores and maps, and those of the outputs of the graph."""
    processor: Any = model.post_processor
    raw = {}
    for name in ("image", "pixel"):
        value = getattr(processor, f"{name}_threshold", None)
        raw[name] = None if value is None else _finite(float(value))
    if raw["image"] is None:
        return {"image": None, "pixel": None, "raw": raw, "origin": "none: the model was not validated after training"}
    scaled = processor.enable_normalization and math.isfinite(float(processor.image_min))
    own = {
        name: 1 - getattr(processor, f"{name}_sensitivity", NORMALIZED_THRESHOLD) if scaled else raw[name]
        for name in raw
    }
    origin = f"{type(processor).__name__}, on the validation images of the training"
    return {**own, "raw": raw, "origin": origin}


def _data(datamodule: "AnomalibDataModule") -> dict[str, Any]:
    """Return the name, category and options of a data module, and what its splits contain; there may be no ``val``."""
    splits, types = {}, set()
    for split in ("train", "val", "test"):
        data = getattr(datamodule, f"{split}_data", None)
        if data is None:
            continue
        samples = data.samples
        listed = "\n".join(sorted("/".join(Path(path).parts[-3:]) for path in samples.image_path))
        splits[split] = {
            "images": len(samples),
            "defective": int((samples.label_index == 1).sum()),
            "names_sha256": hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest(),
        }
        if "defect_type" in samples:
            types |= set(samples.defect_type.dropna().astype(str)) - {"", "normal", "good"}
    return {
        "name": type(datamodule).__name__,
        "category": _plain(getattr(datamodule, "category", None)),
        "defect_types": sorted(types),
        "split": {
            "test_split_mode": _plain(getattr(datamodule, "test_split_mode", None)),
            "val_split_mode": _plain(getattr(datamodule, "val_split_mode", None)),
            "seed": _plain(getattr(datamodule, "seed", None)),
            **splits,
        },
    }


def _training(model: "AnomalibModule", datamodule: "AnomalibDataModule", checkpoint: Path | None) -> dict[str, Any]:
    """Return the checkpoint, and the command that trains such a model."""
    config = checkpoint and _find_above(checkpoint, "config.yaml")
    if config:
        words = ["anomalib", "train", "--config", config.name]
    else:
        options = [(f"--model.{option}", value) for option, value in _arguments(model).items()]
        words = ["anomalib", "train", "--model", type(model).__name__]
        texts = [(option, value if isinstance(value, str) else json.dumps(value)) for option, value in options]
        words += [word for pair in texts for word in pair]
        words += ["--data", type(datamodule).__name__]
    return {
        "checkpoint": checkpoint and checkpoint.name,
        "checkpoint_sha256": checkpoint and _digest(checkpoint),
        "command": shlex.join(words),
        "config": config and config.read_text(encoding="utf-8", errors="replace"),
    }


def count_trained_tests(datamodule: "AnomalibDataModule", checkpoint: Path | None) -> int:
    """Return how many test images of a data module were trained on, by the split file above a checkpoint, if any."""
    from anomalib_defect_plugins.data.split_file import SPLIT_FILE, count_trained

    path = checkpoint and _find_above(checkpoint, SPLIT_FILE)
    return count_trained(path, datamodule.test_data.samples.image_path) if path else 0


def _find_above(checkpoint: Path, name: str) -> Path | None:
    """Return a file that ``anomalib train`` has saved in a folder above a checkpoint."""
    folders = list(checkpoint.absolute().parents)[:MAX_CONFIG_DEPTH]
    return next((path for folder in folders if (path := folder / name).is_file()), None)


def _weights(model: "AnomalibModule") -> Iterator[tuple[str, Any]]:
    """Yield the pretrained weights that a model was trained from, and their licence as timm states it."""
    backbone = model.hparams.get("backbone")
    if not isinstance(backbone, str) or model.hparams.get("pre_trained", True) is False:
        yield "pretrained", None
        yield "license", "no pretrained weights: that of the training images"
        return
    import timm

    known = None
    with contextlib.suppress(Exception):  # timm raises errors of many types for unknown names
        known = timm.get_pretrained_cfg(backbone)
    yield "pretrained", backbone
    yield "license", (known and known.license) or "not stated by timm; see the model's page"


def _arguments(model: "AnomalibModule") -> dict[str, Any]:
    """Return the arguments of a model that differ from their defaults, as plain values."""
    defaults = inspect.signature(type(model).__init__).parameters
    hidden = {"evaluator", "visualizer", "pre_processor", "post_processor"}
    given = {name: _plain(value) for name, value in dict(model.hparams).items() if name in defaults}
    return {
        name: value
        for name, value in given.items()
        if name not in hidden and value != _plain(defaults[name].default) and _is_json(value)
    }


def _class_path(model: "AnomalibModule") -> str:
    cls = type(model)
    return f"{cls.__module__}.{cls.__qualname__}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return getattr(value, "value", str(value) if isinstance(value, Path) else value)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write_server_files(folder: Path, name: str) -> None:
    """Write the layout that OpenVINO Model Server reads; the graph is a hard link where the file system has them."""
    version = folder / SERVER_FOLDER / name / "1"
    version.mkdir(parents=True)
    for file in (GRAPH, "model.bin"):
        _link(folder / file, version / file)
    config = {"model_config_list": [{"config": {"name": name, "base_path": f"/models/{name}"}}]}
    write_text(folder / SERVER_FOLDER / "config.json", json.dumps(config, indent=2) + "\n")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
