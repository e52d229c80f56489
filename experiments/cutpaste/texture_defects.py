"""Compare CutPaste on the embedded TextureDefects with its null model and anomalib's PaDiM; print a Markdown table.

python experiments/cutpaste/texture_defects.py --config configs/cutpaste/quick.yaml --out results/cutpaste

The variants with ImageNet weights, including PaDiM, load MobileNetV2 from the Hugging Face cache, or download it.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from anomalib.models.components import AnomalibModule
from lightning import seed_everything

sys.path.append(str(Path(__file__).parents[1]))

from common import PRETRAINED, create_padim, markdown, mean_rows, train_and_test

from anomalib_defect_plugins.data import TextureDefects
from anomalib_defect_plugins.models.cutpaste import CutPaste

IMAGENET: dict[str, Any] = {"backbone": PRETRAINED, "pre_trained": True}
RANDOM: dict[str, Any] = {"backbone": "resnet18", "pre_trained": False, "learning_rate": 0.03}

VARIANTS: dict[str, dict[str, Any]] = {
    "CutPaste": RANDOM,
    "null model": {**RANDOM, "iterations": 0},
    "CutPaste, ImageNet": IMAGENET,
    "null model, ImageNet": {**IMAGENET, "iterations": 0},
}
"""Arguments of CutPaste that override the configuration's."""

PADIM = "PaDiM"


def create_model(variant: str, settings: dict[str, Any]) -> AnomalibModule:
    """Create a variant of the configuration's CutPaste, or anomalib's PaDiM as in the benchmark."""
    if variant == PADIM:
        return create_padim()
    return CutPaste(**{**settings, **VARIANTS[variant]})


def run(variant: str, config: dict[str, Any], category: str, seed: int, root: Path) -> dict[str, object]:
    """Train and test once, as ``anomalib train`` does."""
    seed_everything(seed)
    model = create_model(variant, config["model"].get("init_args", {}))
    data = TextureDefects(**{**config["data"]["init_args"], "category": category})
    metrics = train_and_test(model, data, root, config["trainer"])
    named = {name.replace("_", " "): value for name, value in metrics.items()}
    return {"model": variant, "category": category, "seed": seed, **named}


def main() -> None:
    """Run all variants, categories and seeds, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("configs/cutpaste/quick.yaml"))
    parser.add_argument("--out", type=Path, default=Path("results/cutpaste"))
    parser.add_argument("--variants", nargs="*", choices=[*VARIANTS, PADIM], default=[*VARIANTS, PADIM])
    parser.add_argument("--categories", nargs="*", default=["brick", "grass", "gravel"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, help="training steps of CutPaste; overrides the configuration")
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())
    if options.iterations is not None:
        config["model"].setdefault("init_args", {})["iterations"] = options.iterations
    rows = []
    for variant in options.variants:
        for category in options.categories:
            for seed in options.seeds:
                rows.append(run(variant, config, category, seed, options.out))
                print(rows[-1], flush=True)
    print(markdown(mean_rows(pd.DataFrame(rows), ["model", "category"])))


if __name__ == "__main__":
    main()
