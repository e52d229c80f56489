"""What users take away: a report of an inspection with masks and a table, a model, and a one-photo model to keep."""

import base64
import io
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.files import new_folder
from anomalib_defect_plugins.core.regions import enlarge_mask, outline
from anomalib_defect_plugins.demo.resources import render_template
from anomalib_defect_plugins.demo.services.defect_table import pred_label, write_table
from anomalib_defect_plugins.demo.services.parts_folder import NAME
from anomalib_defect_plugins.demo.services.predictions import OUTLINE_COLOUR, PhotoPrediction, PredictionSet, jpeg_uri
from anomalib_defect_plugins.demo.services.uploads import encode_png
from anomalib_defect_plugins.inference.run_model import CHECKPOINT, model_files
from anomalib_defect_plugins.results.folder import RUNS
from anomalib_defect_plugins.results.record import FILE, RunRecord, write_record
from anomalib_defect_plugins.results.run_spec import ComponentSpec, MeasureSpec, RunSpec

WORST = 20
"""Images in the report, those with the highest scores."""

REPORT, TABLE, MASKS = "report.html", "defects.csv", "masks"

README = """The graph takes images, shape (1, 3, H, W), RGB in [0, 1]; it returns score, map and verdict.

anomalib-defects inspect openvino/{precision}/model.xml IMAGES --out table.parquet
"""


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
    """Pack the model of a run into a ZIP file that the server offers.

    Args:
        record: The run.

    Returns:
        Path of the file.

    Raises:
        MissingDataError: If the run has kept no model.
    """
    files = [path for path in model_files(record.folder) if path.is_file()]
    if not files:
        msg = f"the run of {record.run.model.name} kept no model; run the benchmark with 'keep: {{model: true}}'"
        raise MissingDataError(msg)
    path = _new_file(f"{record.run.model.name}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in [*files, *(graph.with_suffix(".bin") for graph in files if graph.suffix == ".xml")]:
            archive.write(file, file.relative_to(record.folder).as_posix())
        archive.write(record.folder / FILE, FILE)
        if files[0].suffix == ".xml":
            archive.writestr("README.txt", README.format(precision=files[0].parent.name))
    return str(path)


def keep_model(
    root: Path, name: object, checkpoint: Path, class_path: str, arguments: Mapping[str, object], photo: str
) -> Path:
    """Keep a model that was trained on one photo as a run of the results.

    Args:
        root: Results folder.
        name: Name of the model and of its results folder.
        checkpoint: The checkpoint, which is copied.
        class_path: Class of the model.
        arguments: Its arguments.
        photo: Name of the photo.

    Returns:
        The new results folder.

    Raises:
        InvalidInputError: If the name is invalid or taken.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        msg = f"{str(name)[:60]!r} cannot be the name of the model; use letters, digits, '-' and '_'"
        raise InvalidInputError(msg)
    if (root / name).exists():
        msg = f"there is a model {name} already; choose another name"
        raise InvalidInputError(msg)
    data, supervision = ComponentSpec(photo, "DefectFolder"), ComponentSpec("one photo", None)
    run = RunSpec(ComponentSpec(name, class_path, arguments), data, supervision, 0, {}, MeasureSpec())
    with new_folder(root / name) as partial:
        folder = partial / RUNS / run.key
        folder.mkdir(parents=True)
        shutil.copyfile(checkpoint, folder / CHECKPOINT)
        thresholds = {"image": 0.5, "pixel": 0.5}
        write_record(folder, RunRecord(folder, run, None, {}, "anomalib-defects demo", thresholds=thresholds))
    return root / name


def _decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def _new_file(name: str) -> Path:
    folder = Path(get_upload_folder(), secrets.token_hex(16))
    folder.mkdir(parents=True)
    return folder / name
