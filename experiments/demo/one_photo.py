"""Verdicts of the demo's One photo tab on its own example photos, for several seeds.

Each seed trains on the example photo with the default preset and then inspects the offered photos, as the tab does. The
tab itself always trains with seed 0.
"""

import sys
import time
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import markdown, once

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.services.example_images import brick, defective_brick
from anomalib_defect_plugins.demo.services.one_photo_training import Training
from anomalib_defect_plugins.demo.services.predictions import collect_predictions, predict_photo
from anomalib_defect_plugins.demo.services.uploads import Photo
from anomalib_defect_plugins.demo.tabs.one_photo import PRESETS

SIZE = 256, 256
"""Size of the example photos."""


def train_and_inspect(seed: int) -> Mapping[str, float]:
    """Train on the example photo; return the score of each offered photo, the threshold and the CPU time."""
    start = time.process_time()
    training = Training(Photo("brick.png", brick(), SIZE), list(PRESETS.values())[-1], seed)
    training.run()
    if training.model is None:
        raise InvalidInputError(training.progress().error)
    seconds = time.process_time() - start
    photos = [Photo(name, pixels, SIZE) for name, pixels in defective_brick().items()]
    predictions = [predict_photo(training.model, photo) for photo in photos]
    shown = collect_predictions(training.model, training.model_name, predictions)
    scores = {each.photo.name: each.score for each in shown.predictions}
    (threshold,) = {each.score_threshold(shown.threshold) for each in shown.predictions}
    return {"seed": seed, **scores, "threshold": threshold, "CPU s": seconds}


def is_correct(row: Mapping[str, float]) -> bool:
    """Whether the good photo is normal and the others are defective."""
    kinds = [name for name in row if name not in {"seed", "normal", "threshold", "CPU s"}]
    return row["normal"] < row["threshold"] and all(row[kind] >= row["threshold"] for kind in kinds)


def main() -> None:
    """Print a row per seed."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/one_photo"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for seed in range(options.seeds):
        rows.append(once(options.out / f"{seed}.json", lambda seed=seed: train_and_inspect(seed)))  # type: ignore[misc]
        sys.stderr.write(f"{rows[-1]}\n")
    sys.stdout.write(f"{markdown(rows)}\n{sum(map(is_correct, rows))} of {len(rows)} seeds are correct\n")


if __name__ == "__main__":
    main()
