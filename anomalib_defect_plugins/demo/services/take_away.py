"""What users take away: a report of an inspection with masks and a table, a model, and a one-photo model to keep."""

import base64
import io
import json
import secrets
import shutil
import subprocess
import sys
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.files import new_folder
from anomalib_defect_plugins.core.regions import enlarge_mask, outline
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.demo.resources import render_template
from anomalib_defect_plugins.demo.services.defect_table import pred_label, write_table
from anomalib_defect_plugins.demo.services.one_photo_training import Training
from anomalib_defect_plugins.demo.services.parts_folder import NAME, PARTS
from anomalib_defect_plugins.demo.services.predictions import OUTLINE_COLOUR, PhotoPrediction, PredictionSet, jpeg_uri
from anomalib_defect_plugins.demo.services.uploads import encode_png
from anomalib_defect_plugins.inference.run_model import CHECKPOINT
from anomalib_defect_plugins.results.folder import RUNS
from anomalib_defect_plugins.results.record import RunRecord, write_record
from anomalib_defect_plugins.results.run_spec import ComponentSpec, MeasureSpec, RunSpec, resolve_variables

WORST = 20
"""Images in the report, those with the highest scores."""

ERROR = "error: "
"""Start of the last line of a command that fails."""

REPORT, TABLE, MASKS = "report.html", "defects.csv", "masks"

CHECKED_IMAGES = 40
"""Maximum test images on which a bundle is compared with PyTorch."""

EXPORT_TIMEOUT_S = 600


def pack_report(predictions: PredictionSet, threshold: float) -> str:
    """Pack report, table and masks of an inspection into a ZIP file that the server offers.

    Args:
        predictions: The predictions.
        threshold: Threshold in the units of the maps.

    Returns:
        Path of the file.
    """
    path = _new_file("inspection.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(REPORT, render_report(predictions, threshold))
        archive.writestr(TABLE, write_table(predictions, threshold))
        for number, prediction in enumerate(predictions.predictions, start=1):
            mask = prediction.apply_threshold(threshold).mask
            png = encode_png(enlarge_mask(mask, prediction.photo.size).astype(np.uint8) * 255)
            archive.writestr(f"{MASKS}/{number:04}_{Path(prediction.photo.name).stem}.png", png)
    return str(path)


def render_report(predictions: PredictionSet, threshold: float) -> str:
    """Render an inspection as an HTML file without other files, which the browser can print as PDF.

    Args:
        predictions: The predictions.
        threshold: Threshold in the units of the maps.
    """
    order = predictions.order("Most anomalous first")
    rows = [
        {
            "name": prediction.photo.name,
            "pred_label": pred_label(prediction.is_defective(threshold)),
            "score": prediction.score,
            "defects": len(prediction.apply_threshold(threshold).regions),
        }
        for prediction in (predictions.predictions[index] for index in order)
    ]
    worst = [predictions.predictions[index] for index in order[:WORST]]
    overlays = [jpeg_uri(draw_overlay(predictions, prediction, threshold)) for prediction in worst]
    return render_template(
        "inspection_report.html",
        predictions=predictions,
        threshold=threshold,
        defective=predictions.count_defective(threshold),
        rows=rows,
        worst=list(zip(rows, overlays, strict=False)),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def draw_overlay(predictions: PredictionSet, prediction: PhotoPrediction, threshold: float) -> Image.Image:
    """Draw the anomaly map and the outlines of the defects over a photo in its own colours."""
    photo = _decode(prediction.photo.uri).convert("RGB")
    heat = _decode(prediction.heat_map_uri(predictions.limits, threshold)).convert("RGBA")
    heat = heat.resize(photo.size, Image.Resampling.BILINEAR)
    photo.paste(heat, (0, 0), heat.getchannel("A").point(lambda alpha: round(0.7 * alpha)))
    pixels = np.array(photo)
    pixels[outline(prediction.apply_threshold(threshold).mask, 2)] = OUTLINE_COLOUR
    return Image.fromarray(pixels)


def pack_model(record: RunRecord) -> str:
    """Export the model of a run to a bundle, which is compared with PyTorch on test images, and pack it.

    Args:
        record: The run.

    Returns:
        Path of a ZIP file that the server offers.

    Raises:
        MissingDataError: If the run has kept no checkpoint.
        InvalidInputError: If the model cannot be exported, such as without the images of the run.
    """
    name, checkpoint = record.run.model.name, record.folder / CHECKPOINT
    if not checkpoint.is_file():
        msg = f"the run of {name} kept no checkpoint; run the benchmark with 'keep: {{model: true}}'"
        raise MissingDataError(msg)
    path = _new_file(f"{name}.zip")
    bundle = path.with_name("bundle")
    try:
        _export(record.run, checkpoint, bundle)
        shutil.make_archive(str(path.with_suffix("")), "zip", bundle)
    finally:
        shutil.rmtree(bundle, ignore_errors=True)
    return str(path)


def _export(run: RunSpec, checkpoint: Path, out: Path) -> None:
    """Run ``anomalib-defects export`` in a process of its own: an export changes the state of PyTorch for all threads.

    Raises:
        InvalidInputError: If it fails, with its reason.
    """
    data = resolve_variables(run.datamodule, run.seed)
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in data["init_args"].items()}
    command = [sys.executable, "-m", "anomalib_defect_plugins.cli", "export", f"--ckpt={checkpoint}", f"--out={out}"]
    command += [f"--model={run.model.class_path}", f"--images={CHECKED_IMAGES}"]
    command += [f"--data={data['class_path'].rpartition('.')[2]}", *(f"--data.{key}={values[key]}" for key in values)]
    try:
        process = subprocess.run(  # noqa: S603 - no argument comes from a user
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=EXPORT_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        msg = f"the export took longer than {EXPORT_TIMEOUT_S} s; use 'anomalib-defects export' on the server"
        raise InvalidInputError(msg) from error
    if process.returncode:
        (*_, reason) = ["", *process.stderr.splitlines()]
        msg = f"the model cannot be exported: {reason.removeprefix(ERROR) or f'exit status {process.returncode}'}"
        raise InvalidInputError(msg)


def keep_model(root: Path, name: object, training: Training | None) -> Path:
    """Keep a model that was trained on one photo as a run of the results, with the photo, which exports are checked on.

    Args:
        root: Results folder.
        name: Name of the model and of its results folder.
        training: The training.

    Returns:
        The new results folder.

    Raises:
        InvalidInputError: If the name is invalid or taken, or there is no trained model.
    """
    if training is None or training.checkpoint is None or training.photo is None:
        msg = "the trained model is no longer available; train again"
        raise InvalidInputError(msg)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        msg = f"{str(name)[:60]!r} cannot be the name of the model; use letters, digits, '-' and '_'"
        raise InvalidInputError(msg)
    parts = root.absolute() / PARTS / name
    if (root / name).exists() or parts.exists():
        msg = f"there is a model {name} already; choose another name"
        raise InvalidInputError(msg)
    with new_folder(parts) as partial:
        for split in ("train", "test"):
            (partial / split / GOOD).mkdir(parents=True)
            shutil.copy(training.photo, partial / split / GOOD)
    settings = {"root": str(parts), "mask_dir": None, "val_split_mode": "none", "num_workers": 0}
    data, supervision = ComponentSpec(training.name, "DefectFolder", settings), ComponentSpec("one photo", None)
    model = ComponentSpec(name, training.model_name, training.arguments)
    run = RunSpec(model, data, supervision, 0, {}, MeasureSpec())
    with new_folder(root / name) as partial:
        folder = partial / RUNS / run.key
        folder.mkdir(parents=True)
        shutil.copyfile(training.checkpoint, folder / CHECKPOINT)
        thresholds = {"image": 0.5, "pixel": 0.5}
        write_record(folder, RunRecord(folder, run, None, {}, "anomalib-defects demo", thresholds=thresholds))
    return root / name


def _decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def _new_file(name: str) -> Path:
    folder = Path(get_upload_folder(), secrets.token_hex(16))
    folder.mkdir(parents=True)
    return folder / name
