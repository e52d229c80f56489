"""Measure a configuration on the embedded TextureDefects, for each texture and several seeds.

python experiments/texture_defects.py configs/htpgan/quick.yaml
"""

import time
from argparse import ArgumentParser
from pathlib import Path

import pandas as pd
import yaml
from anomalib.data import get_datamodule
from anomalib.engine import Engine
from anomalib.models import get_model
from lightning import seed_everything


def run(config: dict, category: str, seed: int, root: Path) -> dict[str, object]:
    """Train and test once, as ``anomalib train --config`` does."""
    seed_everything(seed)
    model = get_model(config["model"])
    data = get_datamodule({"class_path": "TextureDefects", "init_args": {**_data(config), "category": category}})
    engine = Engine(default_root_dir=root, enable_progress_bar=False, **config.get("trainer", {}))
    start = time.perf_counter()
    engine.fit(model, datamodule=data)
    seconds = time.perf_counter() - start
    (metrics,) = engine.test(model, datamodule=data, verbose=False)
    return {"category": category, "seed": seed, **metrics, "train s": seconds}


def _data(config: dict) -> dict:
    return config["data"].get("init_args", {})


def main() -> None:
    """Run all categories and seeds, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other arguments of the model")
    parser.add_argument("--precision", default="32-true", help="of training; bf16-mixed is faster on a CPU with AMX")
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
