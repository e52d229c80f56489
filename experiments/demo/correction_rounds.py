"""Rounds of correction and ``anomalib-defects retrain`` on the embedded data, with a simulated user.

A model of a few good parts and four marked defects inspects the validation images of another seed of ``TextureDefects``
in each round. The user corrects each wrong verdict as in the demo, and paints the defects that it misses; all
corrections so far are exported, and ``retrain`` trains a candidate. Its frozen set has the test images of another seed.
The errors in the table are those of the present model on the test images of seed 0, which nothing else uses.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from anomalib.data.utils import LabelName

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import markdown
from marked_defects import copies, image_scores, train

from anomalib_defect_plugins import TextureDefects
from anomalib_defect_plugins.benchmark.retraining import FrozenErrors, count_errors, find_run
from anomalib_defect_plugins.cli import main as run_command
from anomalib_defect_plugins.demo.services.corrections import CorrectionLog
from anomalib_defect_plugins.demo.services.parts_folder import PartImages
from anomalib_defect_plugins.demo.services.parts_recipes import budget_names
from anomalib_defect_plugins.inference.labelled_images import LabelledImage

GOOD_PARTS, MARKED_DEFECTS = 12, 4
"""Images of the first training."""

FROZEN_SEED = 100
"""Seed of the data of the frozen set; those of the rounds are 1, 2 and so on."""


def load(category: str, seed: int) -> TextureDefects:
    """Return the data of a seed, set up."""
    data = TextureDefects(category=category, seed=seed)
    data.prepare_data()
    data.setup()
    return data


def first_images(data: TextureDefects, folder: Path) -> PartImages:
    """Return the images that the first model is trained on."""
    good = data.train_data.samples.iloc[:GOOD_PARTS]
    bad = data.val_data.samples
    bad = bad[bad.label_index == LabelName.ABNORMAL].iloc[:MARKED_DEFECTS]
    masks = [Path(mask).read_bytes() for mask in bad.mask_path]
    painted = dict(zip(copies(bad.image_path, folder), masks, strict=True))
    return PartImages(copies(good.image_path, folder), list(painted), painted=painted)


def correct(log: CorrectionLog, model: Path, samples: pd.DataFrame) -> int:
    """Correct the wrong verdicts of a model on images, and return their number."""
    scores, threshold = image_scores(model, samples.image_path)
    count = 0
    for (_, sample), score in zip(samples.iterrows(), scores, strict=True):
        is_bad = sample.label_index == LabelName.ABNORMAL
        if is_bad != (score >= threshold):
            mask = Path(sample.mask_path).read_bytes() if is_bad else None
            log.add(Path(sample.image_path), "bad" if is_bad else "good", mask=mask, score=score, threshold=threshold)
            count += 1
    return count


def write_frozen(samples: pd.DataFrame, folder: Path) -> Path:
    """Copy images to the subfolders ``good`` and ``defect``."""
    for index, kind in ((LabelName.NORMAL, "good"), (LabelName.ABNORMAL, "defect")):
        copies(samples[samples.label_index == index].image_path, folder / kind)
    return folder


def count_test_errors(model: Path, samples: pd.DataFrame) -> FrozenErrors:
    """Count the errors of a model on labelled images."""
    labels = samples.label_index == LabelName.ABNORMAL
    images = [LabelledImage(path, bool(bad)) for path, bad in zip(samples.image_path, labels, strict=True)]
    return count_errors(find_run(model), images)


def rounds(category: str, number: int, budget: str, out: Path) -> Iterator[dict[str, object]]:
    """Yield a row for the first model and for each round."""
    data = load(category, 0)
    frozen = write_frozen(load(category, FROZEN_SEED).test_data.samples, out / "frozen")
    model = train(out, "round-0", first_images(data, out / ".uploads"), budget)
    yield {"round": 0, "corrected": 0, "promoted": "", **_errors(count_test_errors(model, data.test_data.samples))}
    log = CorrectionLog(out)
    for index in range(1, number + 1):
        corrected = correct(log, model, load(category, index).val_data.samples)
        corrections = log.export(out / f"corrections-{index}")
        target = out / f"round-{index}"
        options = {"corrections": corrections, "frozen": frozen, "out": target}
        run_command(["retrain", str(model), *(word for name in options for word in (f"--{name}", str(options[name])))])
        model = target if target.exists() else model
        errors = _errors(count_test_errors(model, data.test_data.samples))
        yield {"round": index, "corrected": corrected, "promoted": "yes" if model == target else "no", **errors}


def _errors(errors: FrozenErrors) -> dict[str, str]:
    return {
        "false alarms": f"{errors.false_alarms} of {errors.good}",
        "misses": f"{errors.misses} of {errors.bad}",
    }


def main() -> None:
    """Print the errors by round."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--category", default="brick")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", choices=budget_names(), default=budget_names()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/correction_rounds"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for row in rounds(options.category, options.rounds, options.budget, options.out):
        rows.append(row)
        sys.stderr.write(f"{row}\n")
    sys.stdout.write(f"{markdown(rows)}\n")


if __name__ == "__main__":
    main()
