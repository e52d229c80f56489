"""Evaluate a configuration on the embedded TextureDefects, for each texture and several seeds.

python experiments/texture_defects.py configs/htpgan/quick.yaml
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from anomalib.data import get_datamodule
from anomalib.models import get_model
from common import train_and_test
from lightning import seed_everything


def run(config: dict[str, Any], category: str, seed: int, root: Path) -> dict[str, object]:
    """Train and test once, as ``anomalib train --config`` does."""
    seed_everything(seed)
    model = get_model(config["model"])
    data = get_datamodule({"class_path": "TextureDefects", "init_args": {**_data(config), "category": category}})
    return {"category": category, "seed": seed, **train_and_test(model, data, root, config.get("trainer", {}))}


def _data(config: dict[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = config["data"].get("init_args", {})
    return arguments


def main() -> None:
    """Run all categories and seeds, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="model arguments to override")
    parser.add_argument("--precision", default="32-true", help="for training; bf16-mixed is faster on a CPU with AMX")
    parser.add_argument("--out", type=Path, default=Path("results/texture_defects"))
    parser.add_argument("--categories", nargs="*", default=["brick", "grass", "gravel"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())
    for name, _, value in (pair.partition("=") for pair in options.set):
        config["model"].setdefault("init_args", {})[name] = yaml.safe_load(value)
    config.setdefault("trainer", {})["precision"] = options.precision
    rows = []
    for seed in options.seeds:
        for category in options.categories:
            rows.append(run(config, category, seed, options.out))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(table.to_markdown(index=False, floatfmt=".3f"))
    print(table.groupby("category").mean().drop(columns="seed").to_markdown(floatfmt=".3f"))


if __name__ == "__main__":
    main()
