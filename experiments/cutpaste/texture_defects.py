"""Measure CutPaste on the embedded TextureDefects beside its null model and stock PaDiM, and print a Markdown table.

python experiments/cutpaste/texture_defects.py --config configs/cutpaste/quick.yaml --out results/cutpaste

The variants with ImageNet weights, PaDiM among them, take MobileNetV2 from the Hugging Face cache, or download it.
"""

import time
from argparse import ArgumentParser
from pathlib import Path

import pandas as pd
import yaml
from anomalib.engine import Engine
from anomalib.models import AnomalibModule, Padim
from lightning import seed_everything

from anomalib_defect_plugins.data import TextureDefects
from anomalib_defect_plugins.models.cutpaste import CutPaste

IMAGENET = {"backbone": "mobilenetv2_100", "pre_trained": True}

VARIANTS = {
    "CutPaste": {},
    "null model": {"iterations": 0},
    "CutPaste, ImageNet": IMAGENET,
    "null model, ImageNet": {**IMAGENET, "iterations": 0},
}
"""Arguments of CutPaste that differ from the configuration's."""

PADIM = "PaDiM"


def make(variant: str, settings: dict[str, object]) -> AnomalibModule:
    """Make a model: a variant of the configuration's CutPaste, or stock PaDiM as in the benchmark."""
    if variant == PADIM:
        return Padim(backbone="mobilenetv2_100", layers=["blocks.1", "blocks.2", "blocks.4"], n_features=100)
    return CutPaste(**{**settings, **VARIANTS[variant]})


def run(variant: str, config: dict, category: str, seed: int, root: Path) -> dict[str, object]:
    """Train and test once, as ``anomalib train`` does."""
    seed_everything(seed)
    model = make(variant, config["model"]["init_args"])
    data = TextureDefects(**{**config["data"]["init_args"], "category": category})
    engine = Engine(default_root_dir=root, enable_progress_bar=False, **config["trainer"])
    start = time.perf_counter()
    engine.fit(model, datamodule=data)
    seconds = time.perf_counter() - start
    (metrics,) = engine.test(model, datamodule=data, verbose=False)
    named = {name.replace("_", " "): value for name, value in metrics.items()}
    return {"model": variant, "category": category, "seed": seed, **named, "train s": seconds}


def markdown(rows: list[dict[str, object]]) -> str:
    """Give a table of means over the seeds, with lowest and highest in brackets where there are several."""
    table = pd.DataFrame(rows).drop(columns="seed")
    groups = table.groupby(["model", "category"], sort=False)
    names = [name for name in table.columns if name not in {"model", "category"}]
    lines = ["| " + " | ".join(["model", "category", "runs", *names]) + " |", "|---" * (len(names) + 3) + "|"]
    for (model, category), group in groups:
        cells = [spread(group[name], 0 if name == "train s" else 3) for name in names]
        lines.append("| " + " | ".join([model, category, str(len(group)), *cells]) + " |")
    return "\n".join(lines)


def spread(values: pd.Series, digits: int) -> str:
    """Write a mean, and how far the values lie apart."""
    mean, low, high = (f"{value:.{digits}f}" for value in (values.mean(), values.min(), values.max()))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


def main() -> None:
    """Run all variants, categories and seeds, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("configs/cutpaste/quick.yaml"))
    parser.add_argument("--out", type=Path, default=Path("results/cutpaste"))
    parser.add_argument("--variants", nargs="*", choices=[*VARIANTS, PADIM], default=[*VARIANTS, PADIM])
    parser.add_argument("--categories", nargs="*", default=["brick", "grass", "gravel"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, help="training steps of CutPaste, instead of the configuration's")
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())
    if options.iterations is not None:
        config["model"]["init_args"]["iterations"] = options.iterations
    rows = []
    for variant in options.variants:
        for category in options.categories:
            for seed in options.seeds:
                rows.append(run(variant, config, category, seed, options.out))
                print(rows[-1], flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
