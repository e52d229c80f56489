"""Compare the FP32 and INT8 graphs of the models of ``few_masks.py`` on their test images, and print the table.

    DEFECT_DATA_ROOT=... HF_HOME=$DEFECT_DATA_ROOT/hf_home HF_HUB_OFFLINE=1 python experiments/onestage/int8.py

anomalib calibrates INT8 graphs with the evaluation images, without their labels; here these are the test images.
``configs/benchmark/latency.yaml`` measures the time.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openvino
import torch
from anomalib.deploy import CompressionType, ExportType
from anomalib.engine import Engine

sys.path.append(str(Path(__file__).parents[1]))

from common import QUIET, data_root, markdown
from few_masks import compute_metrics

from anomalib_defect_plugins import MagneticTile, OneStage, WithDefects
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.data.original_masks import OriginalMasks
from anomalib_defect_plugins.inference.openvino import FULL_PRECISION

METRICS = ["pixel AP", "pixel AUROC", "image AUROC"]


def export(model: OneStage, data: WithDefects, precision: str, folder: str) -> openvino.CompiledModel:
    """Export a model to OpenVINO, for images of any size."""
    arguments: dict[str, Any] = {"export_root": folder}
    if precision == "INT8":
        arguments |= {"compression_type": CompressionType.INT8_PTQ, "datamodule": data}
    path = Engine(accelerator="cpu", logger=False).export(model, ExportType.OPENVINO, **arguments)
    return openvino_core().compile_model(str(path), "CPU", FULL_PRECISION)


def evaluate(graph: openvino.CompiledModel, data: WithDefects) -> dict[str, float]:
    """Compute the metrics of a graph on the test images, at their original size."""
    original = OriginalMasks(data)
    scores, maps, masks = [], [], []
    for index in range(len(data.test_data)):
        item: Any = data.test_data[index]
        mask = torch.from_numpy(original(str(item.image_path)))
        result = graph(item.image[None].numpy())
        values = torch.from_numpy(np.array(result["anomaly_map"]))
        values = values.reshape(1, 1, *values.shape[-2:])
        scores.append(float(np.array(result["pred_score"]).reshape(-1)[0]))
        maps.append(torch.nn.functional.interpolate(values, mask.shape, mode="bilinear")[0, 0])
        masks.append(mask)
    types = data.test_data.samples.defect_type.to_numpy()
    return compute_metrics(torch.tensor(scores), maps, masks, types)


def main() -> None:
    """Export and evaluate the model of each seed."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("results/few_masks/40-masks-8/models"))
    parser.add_argument("--masks", type=int, default=40)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        checkpoint = sorted((options.models / str(seed)).rglob("*.ckpt"))[-1]
        model = OneStage.load_from_checkpoint(checkpoint, map_location="cpu", **QUIET).eval()
        base = MagneticTile(data_root("magnetic_tile"), eval_batch_size=1, num_workers=0)
        data = WithDefects(base, real=options.masks, per_object=1, seed=seed)
        data.setup()
        for precision in ("FP32", "INT8"):
            with TemporaryDirectory() as folder:
                metrics = evaluate(export(model, data, precision, folder), data)
            rows.append({"seed": seed, "graph": precision, **{name: metrics[name] for name in METRICS}})
    print(markdown(rows))


if __name__ == "__main__":
    main()
