"""Writes a results folder like that of ``anomalib-defects benchmark``, with invented metrics and maps."""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CONFIGURATION = "name: made-up\nseeds: [0, 1, 2]\n"

DISTINCT_IMAGES = 12
"""Number of different images; further ones are links to these."""


@dataclass(frozen=True)
class Layout:
    """Content of a results folder.

    Args:
        models: Labels of the models, from the slowest to the fastest.
        data: Labels of the data sets.
        supervisions: Labels of the kinds of supervision.
        seeds: Seeds.
        images: Test images of a run; half of them, rounded up, are normal.
        size: Width and height of the images.
        failed: Model and seed of failed runs.
        latency: Whether latency was measured.
        maps: Whether maps were kept.
    """

    models: Sequence[str] = ("HtpGan", "PaDiM")
    data: Sequence[str] = ("brick", "gravel")
    supervisions: Sequence[str] = ("normal",)
    seeds: Sequence[int] = (0, 1, 2)
    images: int = 6
    size: tuple[int, int] = (64, 48)
    failed: Sequence[tuple[str, int]] = ()
    latency: bool = True
    maps: bool = True


def write_results(root: Path, layout: Layout | None = None) -> Path:
    """Write the folder; equal layouts give equal metrics.

    Args:
        root: The results folder; the images are beside it, in ``images``.
        layout: Content of the folder.

    Returns:
        ``root``.
    """
    layout = layout or Layout()
    pool = _write_images(root.parent / "images", layout) if layout.maps else []
    rows = []
    for index, labels in enumerate(product(layout.models, layout.data, layout.supervisions, layout.seeds)):
        content = _content(layout, *labels)
        folder = root / "runs" / content["key"]
        write_run(folder, content)
        if content["status"] == "done":
            _write_images_table(folder, layout, pool, np.random.default_rng(index))
        named = dict(zip(("model", "data", "supervision", "seed"), labels, strict=True))
        rows.append({"key": content["key"], "status": content["status"], **named, **content.get("metrics", {})})
    (root / "benchmark.yaml").write_text(CONFIGURATION)
    write_table(root / "results.csv", rows)
    return root


def write_run(folder: Path, content: dict[str, Any]) -> None:
    """Write a ``run.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(content, indent=2))


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a CSV file with a column for each name in its rows."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        table.writeheader()
        table.writerows(rows)


def make_run(model: str = "PaDiM", data: str = "brick", supervision: str = "normal", seed: int = 0) -> dict[str, Any]:
    """Create the specification of a run."""
    wrapped = supervision != "normal"
    wrapper = {"class_path": "WithDefects" if wrapped else None, "init_args": {"real": supervision} if wrapped else {}}
    return {
        "model": {"name": model, "class_path": model.title(), "init_args": {"backbone": "resnet18"}},
        "data": {"name": data, "class_path": "TextureDefects", "init_args": {"category": data}},
        "supervision": {"name": supervision, **wrapper},
        "seed": seed,
        "trainer": {"max_epochs": 3},
        "measure": {"latency": True, "precisions": ["FP32", "FP16", "INT8"], "keep": {"maps": True, "model": True}},
    }


def key_of(run: dict[str, Any]) -> str:
    """Compute a key of a run, independent of its labels."""
    fields = {name: {**value, "name": None} if isinstance(value, dict) else value for name, value in run.items()}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def make_content(run: dict[str, Any], metrics: Mapping[str, float | None], **more: Any) -> dict[str, Any]:
    """Create the content of ``run.json`` of a finished run."""
    key = key_of(run)
    return {
        "key": key,
        "status": "done",
        "error": None,
        "run": run,
        "metrics": metrics,
        "cost": {},
        "latency": [],
        "export_difference": {},
        "map_range": [0.0, 1.0],
        "thresholds": {"image": 0.5, "pixel": 0.5},
        "split": {"train": 20, "test": 30, "hash": "0" * 64},
        "environment": {"anomalib": "2.7.0", "cpu": "invented CPU", "cores": 2, "gpu": None, "date": f"2026-{key[:2]}"},
        "command": f"anomalib-defects benchmark --config benchmark.yaml --only {key}",
        **more,
    }


def _content(layout: Layout, model: str, data: str, supervision: str, seed: int) -> dict[str, Any]:
    run = make_run(model, data, supervision, seed)
    rank = layout.models.index(model)
    places = layout.data.index(data), layout.supervisions.index(supervision)
    rng = np.random.default_rng([rank, *places, seed])
    # Some of the later models are better than earlier ones.
    level = 0.97 - 0.03 * rank + 0.035 * (rank % 3) - 0.02 * places[0] + 0.02 * places[1]
    names = ("image_AUROC", "image_F1Score", "image_Precision", "image_Recall", "pixel_AUROC", "pixel_IoU")
    drops = (0, 0.06, 0.05, 0.08, 0.02, 0.35)
    if (model, seed) in layout.failed:
        content = make_content(run, {}, status="failed", error="InvalidInputError: the loss is nan at step 12")
        return {name: content[name] for name in ("key", "status", "error", "run", "environment", "command")}
    return make_content(
        run,
        {name: float(min(1, level - drop + rng.normal(0, 0.008))) for name, drop in zip(names, drops, strict=True)},
        cost=_cost(rank, rng),
        latency=_latency(len(layout.models) - rank, rng) if layout.latency else [],
        export_difference={"FP32": 1.2e-6, "FP16": 7e-4, "INT8": 0.02} if layout.latency else {},
    )


def _cost(rank: int, rng: np.random.Generator) -> dict[str, float | None]:
    return {
        "train_seconds": 900 / 3**rank * rng.uniform(0.9, 1.1),
        "test_seconds": 4 + rng.uniform(0, 1),
        "peak_host_bytes": int((1.2 + 0.3 * rank) * 2**30),
        "peak_gpu_bytes": None,
        "parameters": 11_200_000 + 4_000_000 * rank,
        "flops": int(3.6e9 * (rank + 1)),
    }


def _latency(slow: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    settings = [
        ("torch", "FP32", 1.6),
        ("openvino", "FP32", 1.0),
        ("openvino", "FP16", 0.9),
        ("openvino", "INT8", 0.45),
    ]
    rows = []
    for (engine, precision, factor), batch in product(settings, (1, 8)):
        median = 4.0 * slow**1.5 * factor * batch**0.9 * rng.uniform(0.97, 1.03)
        times = {"median_ms": median, "p95_ms": 1.1 * median, "p99_ms": 1.3 * median}
        setting = {"engine": engine, "precision": precision, "device": "CPU", "batch": batch}
        rows.append({**setting, **times, "images_per_second": 1000 * batch / median, "repeats": 50, "reason": None})
    return rows


def _write_images(folder: Path, layout: Layout) -> list[tuple[Path, Image.Image, Image.Image]]:
    """Draw textures, every second one with a scratch, and return path, mask and map of each."""
    folder.mkdir(parents=True, exist_ok=True)
    pool = []
    for number in range(min(layout.images, DISTINCT_IMAGES)):
        rng = np.random.default_rng(number)
        noise = Image.fromarray(rng.integers(0, 256, layout.size[::-1], dtype=np.uint8), "L")
        image = noise.filter(ImageFilter.GaussianBlur(1.2)).point(lambda value: 60 + value // 2)
        mask = Image.new("L", layout.size)
        if number % 2:
            ends = rng.uniform(0.15, 0.85, (2, 2)) * layout.size
            ImageDraw.Draw(mask).line([tuple(end) for end in ends], fill=255, width=max(2, layout.size[0] // 24))
            image.paste(30, mask=mask)
        path = folder / f"{number:05}.png"
        image.convert("RGB").save(path)
        pool.append((path, mask, mask.filter(ImageFilter.GaussianBlur(layout.size[0] / 24))))
    return pool


def _write_images_table(
    folder: Path, layout: Layout, pool: list[tuple[Path, Image.Image, Image.Image]], rng: np.random.Generator
) -> None:
    rows = []
    for name in ("maps", "masks") if layout.maps else ():
        (folder / name).mkdir()
    for number in range(layout.images):
        label = number % 2
        score = float(np.clip(rng.normal(0.35 + 0.3 * label, 0.15), 0, 1))
        row = {"label": label, "defect_type": "scratch" if label else "normal", "score": score}
        row |= {"pred_label": int(score > 0.5), "width": layout.size[0], "height": layout.size[1], "map": ""}
        path = folder.parent / "none.png"
        if layout.maps:
            path, mask, heat = pool[number % len(pool)]
            row["map"] = f"{number:05}.png"
            _write_map(folder, number, mask, heat, rng)
        rows.append({"image_path": str(path), **row})
    write_table(folder / "images.csv", rows)


def _write_map(folder: Path, number: int, mask: Image.Image, heat: Image.Image, rng: np.random.Generator) -> None:
    first = folder / "maps" / f"{number % DISTINCT_IMAGES:05}.png"
    if number >= DISTINCT_IMAGES:
        (folder / "maps" / f"{number:05}.png").hardlink_to(first)
    else:
        noise = Image.fromarray(rng.integers(0, 120, heat.size[::-1], dtype=np.uint8), "L")
        blurred = np.asarray(noise.filter(ImageFilter.GaussianBlur(heat.size[0] / 32)), np.float32)
        peak = max(1, np.asarray(heat).max())
        Image.fromarray(np.maximum(blurred, np.asarray(heat) * (230 / peak)).astype(np.uint8)).save(first)
    if mask.getbbox():
        target = folder / "masks" / f"{number:05}.png"
        known = folder / "masks" / f"{number % DISTINCT_IMAGES:05}.png"
        mask.save(target) if number < DISTINCT_IMAGES else target.hardlink_to(known)
