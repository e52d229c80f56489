"""Training on ten marked defects as the demo's Train tab does it, on the embedded data.

Good parts are the normal training and validation images of ``TextureDefects``; the defective parts are ten of its
validation images, with their masks as if painted. The AUROC is that of all its test images, 30 normal and 60 defective.
"""

import shutil
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from anomalib.data.utils import LabelName
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import markdown

from anomalib_defect_plugins import TextureDefects
from anomalib_defect_plugins.benchmark.retraining import find_run
from anomalib_defect_plugins.cli import main as run_command
from anomalib_defect_plugins.demo.services.parts_folder import PartImages, summarize_parts, write_parts
from anomalib_defect_plugins.demo.services.parts_recipes import best_recipe, budget_names, configuration
from anomalib_defect_plugins.demo.services.uploads import read_upload
from anomalib_defect_plugins.inference.run_model import load_model


def uploads(data: TextureDefects, defects: int, seed: int, folder: Path) -> PartImages:
    """Return the images that a user would add and paint on, ``defects`` of them defective.

    Args:
        data: The data, set up.
        defects: Number of defective images.
        seed: Seed of their choice.
        folder: Folder for copies of the images, whose names are unique.
    """
    train, val = data.train_data.samples, data.val_data.samples
    is_good = val.label_index == LabelName.NORMAL
    bad = val[~is_good].sample(defects, random_state=seed)
    masks = [Path(mask).read_bytes() for mask in bad.mask_path]
    painted = dict(zip(copies(bad.image_path, folder), masks, strict=True))
    good = copies([*train.image_path, *val[is_good].image_path], folder)
    return PartImages(good, list(painted), painted=painted)


def copies(paths: Iterable[str], folder: Path) -> list[str]:
    """Copy images, such as ``val/crack/020.png``, to a folder as ``val_crack_020.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    return [str(shutil.copyfile(path, folder / "_".join(Path(path).parts[-3:]))) for path in paths]


def train(root: Path, name: str, images: PartImages, budget: str) -> Path:
    """Train as the tab does, without its queue; return the results folder."""
    folder = write_parts(root, name, images)
    config = root / f"{name}.yaml"
    recipe = best_recipe(summarize_parts(folder))
    config.write_text(configuration(name, folder, recipe, budget), encoding="utf-8")
    if status := run_command(["benchmark", "--config", str(config), "--out", str(root / name)]):
        sys.exit(status)
    return root / name


def image_scores(folder: Path, paths: Sequence[str]) -> tuple[list[float], float]:
    """Return the scores of images by the model of a results folder, as Inspect computes them, and its threshold."""
    model = load_model(find_run(folder))
    return [model(read_upload(path).pixels).score for path in paths], model.thresholds.image


def main() -> None:
    """Print the metrics of one training."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--category", default="brick")
    parser.add_argument("--defects", type=int, default=10)
    parser.add_argument("--budget", choices=budget_names(), default=budget_names()[1])
    parser.add_argument("--seed", type=int, default=0, help="of the choice of defective images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/marked_defects"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = TextureDefects(category=options.category)
    data.prepare_data()
    data.setup()
    wall, cpu = time.perf_counter(), time.process_time()
    name = f"{options.category}-{options.defects}-{options.seed}"
    images = uploads(data, options.defects, options.seed, options.out / ".uploads")
    folder = train(options.out, name, images, options.budget)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    test = data.test_data.samples
    scores, threshold = image_scores(folder, test.image_path)
    is_bad = test.label_index.to_numpy() == LabelName.ABNORMAL
    found = np.array(scores) >= threshold
    row = {
        "category": options.category,
        "time": options.budget,
        "image AUROC": float(roc_auc_score(is_bad, scores)),
        "misses": f"{int((is_bad & ~found).sum())} of {int(is_bad.sum())}",
        "false alarms": f"{int((~is_bad & found).sum())} of {int((~is_bad).sum())}",
        "wall s": wall,
        "CPU s": cpu,
    }
    sys.stdout.write(f"{markdown([row])}\n")


if __name__ == "__main__":
    main()
