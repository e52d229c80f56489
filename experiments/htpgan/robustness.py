"""Measure HTP-GAN on moved, mirrored, scaled and rotated test images (section 3.3), and print the table.

    python experiments/htpgan/robustness.py --data TextureDefects --data.category brick
    python experiments/htpgan/robustness.py --data CrackForest --data.root ... --set fusion=log_odds --scales 12 \
        --without-module

One model is trained on the untransformed normal image; options of the data module follow as on the command line of
anomalib. Transformed images have no borders: they are rotated and scaled with reflection. Pixel metrics compare the map
of the transformed image with the transformed mask; ``best mIoU`` is that of the best threshold on the test labels, an
upper bound, and the same threshold, chosen on the untransformed images, gives ``mIoU``.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from anomalib.data import AnomalibDataModule
from kornia.geometry.transform import hflip, warp_affine
from lightning import seed_everything
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

sys.path.append(str(Path(__file__).parents[1]))

from common import QUIET, add_run_options, create_engine, markdown, once, transformed
from crack_forest import confusion_curve

from anomalib_defect_plugins.cli.datamodules import find_datamodule, set_up
from anomalib_defect_plugins.core.errors import UserError
from anomalib_defect_plugins.models.htpgan import HtpGan


def warp(scale: float = 1.0, degrees: float = 0.0, shift: float = 0.0) -> Callable[[Tensor], Tensor]:
    """Return a transform about the centre: enlarged by ``scale``, rotated, moved by a share of the width and height."""
    angle = np.deg2rad(degrees)
    matrix = torch.tensor([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], dtype=torch.float) * scale

    def apply(image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        center = torch.tensor([(width - 1) / 2, (height - 1) / 2])
        offset = center - matrix @ center + shift * torch.tensor([width, height])
        affine = torch.cat([matrix, offset[:, None]], 1)[None].to(image)
        return warp_affine(image, affine, (height, width), padding_mode="reflection", align_corners=True)

    return apply


VARIATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda image: image,
    "translation by an eighth": warp(shift=1 / 8),
    "mirror": hflip,
    "scale 0.8": warp(scale=0.8),
    "scale 1.25": warp(scale=1.25),
    "rotation by 45 degrees": warp(degrees=45),
}


def best_threshold(scores: Tensor, masks: Tensor) -> float:
    """Return the threshold with the highest mean IoU over background and defect."""
    candidates = np.quantile(scores.numpy(), np.linspace(0.5, 1, 1001))
    return float(candidates[confusion_curve(scores.numpy(), masks.numpy(), candidates)[0].argmax()])


def mean_iou(scores: Tensor, masks: Tensor, threshold: float) -> float:
    """Return the mean IoU over background and defect of ``scores > threshold``."""
    return float(confusion_curve(scores.numpy(), masks.numpy(), np.array([threshold]))[0][0])


def predict(model: HtpGan, data: AnomalibDataModule, vary: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """Return maps and masks of all pixels, scores and labels of all images, of varied test images."""
    maps, masks, scores, labels = [], [], [], []
    for item, image, mask in transformed(model, data.test_data):
        truth = torch.zeros_like(image[:, :1]) if mask is None else torch.as_tensor(mask)[None, None].to(image)
        with torch.inference_mode():
            output = model.model(vary(image).clamp(0, 1))
        maps.append(output.anomaly_map.flatten().cpu())
        masks.append(vary(truth).flatten().cpu() > 0.5)
        scores.append(output.pred_score.flatten().cpu())
        labels.append(item.gt_label.reshape(1).bool())
    return torch.cat(maps), torch.cat(masks), torch.cat(scores), torch.cat(labels)


def measure(options: Namespace, data: AnomalibDataModule, arguments: dict[str, Any]) -> dict[str, float]:
    """Train once and evaluate all variations; the keys are ``VARIATION/METRIC``."""
    seed_everything(options.seed)
    model = HtpGan(**arguments, **QUIET)
    create_engine(options.out, options.precision).fit(model, datamodule=data)
    results: dict[str, float] = {}
    threshold = None
    for name, vary in VARIATIONS.items():
        maps, masks, scores, labels = predict(model, data, vary)
        best = best_threshold(maps, masks)
        threshold = best if threshold is None else threshold
        values = {
            "image AUROC": float(binary_auroc(scores, labels.long())) if not labels.all() else float("nan"),
            "pixel AUROC": float(binary_auroc(maps, masks.long())),
            "mIoU": mean_iou(maps, masks, threshold),
            "best mIoU": mean_iou(maps, masks, best),
        }
        results |= {f"{name}/{metric}": value for metric, value in values.items()}
    return results


def read_arguments() -> Namespace:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, help="data module")
    parser.add_argument("--scales", nargs="*", type=int, default=[7], help="numbers of scales")
    parser.add_argument("--without-module", action="store_true", help="also without the texture-perceiving module")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other model arguments")
    parser.add_argument("--seed", type=int, default=0)
    add_run_options(parser, "results/htpgan/robustness")
    options, options.rest = parser.parse_known_args()
    return options


def main() -> None:
    """Run the missing runs, and print a table."""
    options = read_arguments()
    torch.set_num_threads(options.threads)
    given = {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in options.set)}
    rows = []
    try:
        data = set_up(find_datamodule(options.data), options.data, options.rest, options.seed)
        for scales in options.scales:
            for module in (True, False) if options.without_module else (True,):
                arguments = {"num_scales": scales, "texture_module": module, **given}
                name = "-".join([options.data, *options.rest, *map(str, arguments.values()), str(options.seed)])
                path = options.out / f"{name.replace('/', '_')}.json"
                results = once(path, lambda arguments=arguments: measure(options, data, arguments))
                for variation in VARIATIONS:
                    metrics = {
                        key.split("/")[1]: value for key, value in results.items() if key.startswith(f"{variation}/")
                    }
                    rows.append({"scales": scales, "module": module, "variation": variation, **metrics})
    except UserError as error:
        sys.exit(f"error: {error}")
    print(markdown(rows))


if __name__ == "__main__":
    main()
