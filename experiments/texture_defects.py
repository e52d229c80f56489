"""Measure HTP-GAN on the embedded TextureDefects, one normal image a category, and print the table of its README.

python experiments/htpgan/texture_defects.py --out results/texture_defects
"""

import time
from argparse import ArgumentParser
from pathlib import Path

import pandas as pd
from anomalib.engine import Engine
from lightning import seed_everything

from anomalib_defect_plugins import HtpGan, TextureDefects


def run(category: str, seed: int, root: Path) -> dict[str, object]:
    """Train and test once, as ``anomalib train`` does."""
    seed_everything(seed)
    model, data = HtpGan(), TextureDefects(category=category)
    engine = Engine(default_root_dir=root, accelerator="auto", devices=1, enable_progress_bar=False)
    start = time.perf_counter()
    engine.fit(model, datamodule=data)
    seconds = time.perf_counter() - start
    (metrics,) = engine.test(model, datamodule=data, verbose=False)
    return {"category": category, "seed": seed, **metrics, "train s": seconds}


def main() -> None:
    """Run all categories and seeds, and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/texture_defects"))
    parser.add_argument("--categories", nargs="*", default=["brick", "grass", "gravel"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        for category in options.categories:
            rows.append(run(category, seed, options.out))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows).groupby("category").mean().drop(columns="seed")
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
