"""Choice of a threshold on labelled images, its record, and its way back into the model."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import numpy as np

from anomalib_defect_plugins.core.checkpoint_keys import OPERATING_POINT_KEY
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import atomic_path, write_bytes, write_text
from anomalib_defect_plugins.core.operating_points import (
    CONFIDENCE,
    Costs,
    OperatingPoint,
    Rate,
    Scores,
    clopper_pearson,
    evaluate,
    images_needed,
    limit_false_alarms,
    limit_misses,
    minimize_cost,
    upper_limit,
    widened,
)
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.inference.graph_thresholds import GraphThresholds, write_graph
from anomalib_defect_plugins.inference.labelled_images import LabelledImage
from anomalib_defect_plugins.inference.scoring import CheckpointScorer, ImageScorer, load_scorer
from anomalib_defect_plugins.report.operating_point import draw_histogram, render_png

MAX_CHECKED = 200
"""Images whose verdicts a written model has to repeat, those closest to the threshold."""

RECORD, SCORES, HISTOGRAM = "operating_point.json", "scores.csv", "histogram.png"
"""Files that a choice writes."""


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen: exactly one of the first four.

    Args:
        max_misses: Maximum rate of missed defects.
        max_false_alarms: Maximum rate of false alarms.
        costs: Costs of errors, whose expected sum is minimal.
        at: A threshold that was chosen before, on other images.
        confidence: Confidence level of intervals and promises.
    """

    max_misses: float | None = None
    max_false_alarms: float | None = None
    costs: Costs | None = None
    at: float | None = None
    confidence: float = CONFIDENCE

    def __str__(self) -> str:
        """Describe the rule."""
        confident = f"with {percent(self.confidence)} confidence"
        if self.max_misses is not None:
            return f"at most {percent(self.max_misses)} misses, {confident}"
        if self.max_false_alarms is not None:
            return f"at most {percent(self.max_false_alarms)} false alarms, {confident}"
        if self.costs is not None:
            costs = self.costs
            return (
                f"lowest cost: {costs.miss:g} for a miss, {costs.false_alarm:g} for a false alarm, "
                f"{percent(costs.defect_rate)} defective parts"
            )
        return "given, not chosen on these images"


@dataclass(frozen=True)
class Choice:
    """A chosen threshold and the images behind it.

    Args:
        rule: How it was chosen.
        point: The operating point.
        units: Units of the scores.
        images: Good and defective images.
        scores: Their scores, shape (N,).
        pixel: Whether it is a threshold of pixels, with the scores of regions.
        min_area: Minimum area of a defect in pixels of the image.
    """

    rule: Rule
    point: OperatingPoint
    units: str
    images: Sequence[LabelledImage]
    scores: Scores
    pixel: bool = False
    min_area: int = 1

    @property
    def by_type(self) -> dict[str, Rate]:
        """Misses of each type of defect."""
        # A rule that looks at all defective images does not fix the number of misses of a type.
        limits = widened if self.rule.max_misses is not None or self.rule.costs is not None else _unchanged
        types = np.array([image.defect_type for image in self.images])
        is_bad = np.array([image.is_bad for image in self.images])
        missed = is_bad & (self.scores < self.point.threshold)
        confidence, counts = self.point.confidence, {}
        for name in dict.fromkeys(types[is_bad].tolist()):
            is_type = is_bad & (types == name)
            rate = clopper_pearson(int(missed[is_type].sum()), int(is_type.sum()), confidence)
            counts[str(name)] = limits(rate, confidence)
        return counts

    def record(self) -> dict[str, Any]:
        """Return what documents the threshold, as JSON values."""
        good, bad = split(self.images, self.scores)
        kind = "pixel" if self.pixel else "image"
        return {
            "threshold": self.point.threshold,
            f"{kind}_threshold": self.point.threshold,
            "units": self.units,
            "rule": self._rule_text(),
            "threshold_origin": "given"
            if self.rule.at is not None
            else "labelled images"
            if len(bad)
            else "good images",
            "confidence": self.point.confidence,
            "good": len(good),
            "bad": len(bad),
            "misses": _as_json(self.point.misses),
            "false_alarms": _as_json(self.point.false_alarms),
            "misses_by_type": {name: _as_json(rate) for name, rate in self.by_type.items()},
            "promise": self.point.promise,
            "min_area": self.min_area,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def _rule_text(self) -> str:
        """Return the rule, and what the images can promise if that is less."""
        if shortfall(self) is None:
            return str(self.rule)
        return f"{self.rule} (the images are too few and only show at most {percent(self.point.promise or 1)})"


def split(images: Sequence[LabelledImage], scores: Scores) -> tuple[Scores, Scores]:
    """Return the scores of good and of defective images."""
    is_bad = np.array([image.is_bad for image in images], bool)
    return scores[~is_bad], scores[is_bad]


def choose(rule: Rule, images: Sequence[LabelledImage], scores: Scores) -> OperatingPoint:
    """Choose the threshold.

    Raises:
        InvalidInputError: If the rule needs images that there are none of.
    """
    good, bad = split(images, scores)
    if not len(bad) and (rule.max_misses is not None or rule.costs is not None):
        option = "--max-misses" if rule.costs is None else "--cost-miss"
        msg = f"{option} needs defective images and there are none; pass some with --bad, or use --max-false-alarms"
        raise InvalidInputError(msg)
    if not len(good) and rule.max_misses is None and rule.at is None:
        msg = "there are no good images; pass some with --good, or use --max-misses"
        raise InvalidInputError(msg)
    if rule.max_misses is not None:
        return limit_misses(good, bad, rule.max_misses, rule.confidence)
    if rule.max_false_alarms is not None:
        return limit_false_alarms(good, bad, rule.max_false_alarms, rule.confidence)
    if rule.costs is not None:
        return minimize_cost(good, bad, rule.costs, rule.confidence)
    return evaluate(float(np.float32(rule.at)), good, bad, rule.confidence)


def shortfall(choice: Choice) -> str | None:
    """Return what the number of images cannot promise, in one sentence; ``None`` if it is sufficient."""
    rule, point = choice.rule, choice.point
    share, rate, errors, kind = rule.max_misses, point.misses, "misses", "defective"
    if share is None:
        share, rate, errors, kind = rule.max_false_alarms, point.false_alarms, "false alarms", "good"
    if share is None or rate is None or (point.promise or 0) <= share:
        return None
    best = upper_limit(0, rate.total, point.confidence)
    return (
        f"{counted(rate.total, f'{kind} image')} cannot promise fewer than {percent(best)} {errors}; "
        f"{images_needed(share, point.confidence)} would be needed for {percent(share)}"
    )


def outside(choice: Choice) -> str | None:
    """Return which verdict all images have at a given threshold, in one sentence; ``None`` if they differ."""
    low, high = choice.scores.min(), choice.scores.max()
    if choice.rule.at is None or low < choice.point.threshold <= high:
        return None
    verdict = "good" if choice.point.threshold > high else "defective"
    return f"all images are {verdict} at this threshold; their scores are {low:.4g} to {high:.4g}"


def percent(share: float) -> str:
    """Format a share: ``0.3 %``, ``10.5 %``."""
    return f"{100 * share:.3g} %"


def describe(rate: Rate | None, confidence: float) -> str:
    """Format a rate with its interval and the number of images behind it."""
    if rate is None:
        return "unknown, no such images"
    interval = f"{100 * rate.low:.3g} to {percent(rate.high)}"
    return f"{rate.count} of {rate.total}: {percent(rate.value)} ({100 * confidence:g} % interval {interval})"


def summary(choice: Choice) -> str:
    """Return the result as lines of text."""
    point, confidence = choice.point, choice.point.confidence
    good, bad = split(choice.images, choice.scores)
    of_pixels = f", pixels; defects of {choice.min_area} pixels or more" if choice.pixel else ""
    rows = {
        "images": f"{len(good)} good, {len(bad)} defective",
        "rule": str(choice.rule),
        "threshold": f"{point.threshold:.9g} ({choice.units}{of_pixels})",
        "misses": describe(point.misses, confidence),
        "false alarms": describe(point.false_alarms, confidence),
    }
    if len(choice.by_type) > 1:
        rows |= {f"  misses, {name}": describe(rate, confidence) for name, rate in choice.by_type.items()}
    if choice.rule.costs is not None and point.misses and point.false_alarms:
        costs = choice.rule.costs
        expected = costs.per_part(point.misses.value, point.false_alarms.value)
        rows["cost"] = f"{expected:.4g} a part; {costs.per_part(1, 0):.4g} without inspection"
    width = max(map(len, rows)) + 2
    lines = [f"{name:<{width}}{text}" for name, text in rows.items()]
    if point.promise is not None:
        errors = "misses" if choice.rule.max_misses is not None else "false alarms"
        lines.append(f"limit: at most {percent(point.promise)} {errors} with {percent(confidence)} confidence")
    notes = [note for note in (shortfall(choice), outside(choice)) if note is not None]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)]) + "\n"


def write_choice(choice: Choice, folder: Path) -> None:
    """Write the record, the scores and their histogram into a folder.

    Raises:
        InvalidInputError: If a file cannot be written.
    """
    good, bad = split(choice.images, choice.scores)
    figure = draw_histogram(good, bad, choice.point, choice.units, choice.rule.costs)
    try:
        write_text(folder / RECORD, json.dumps(choice.record(), indent=1) + "\n")
        write_text(folder / SCORES, _score_table(choice))
        write_bytes(folder / HISTOGRAM, render_png(figure))
    except OSError as error:
        msg = f"cannot write to {folder} ({error.strerror or error}); choose another folder (--out)"
        raise InvalidInputError(msg) from error


def _score_table(choice: Choice) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "defect_type", "score", "pred_label"])
    for image, score in zip(choice.images, choice.scores.tolist(), strict=True):
        label = int(score >= choice.point.threshold)
        writer.writerow([image.path, int(image.is_bad), image.defect_type, f"{score:.9g}", label])
    return buffer.getvalue()


def write_model(
    model: Path, out: Path, scorer: ImageScorer, choice: Choice, scores_are_maxima: bool, precision: str | None = None
) -> str:
    """Write the threshold into a copy of the model, or into the model itself, and check the verdicts of the copy.

    Args:
        model: Checkpoint or graph.
        out: File to write; may be ``model``.
        scorer: The loaded model.
        choice: The threshold.
        scores_are_maxima: Whether the model's own score of an image is the maximum of its map.
        precision: Inference precision of a graph.

    Returns:
        What to know about the file, in one line.

    Raises:
        InvalidInputError: If the file cannot be written, or the written model decides otherwise.
    """
    threshold = choice.point.threshold
    if isinstance(scorer, CheckpointScorer):
        if out.suffix != model.suffix:
            msg = f"{out} is no checkpoint; use {out.with_suffix(model.suffix)}"
            raise InvalidInputError(msg)
        decides = not choice.pixel or scores_are_maxima
        _write_checkpoint(model, out, scorer, choice, threshold if decides else None)
    else:
        decides = True
        write_graph(model, out, graph_thresholds(choice), choice.record())
    if choice.pixel and choice.min_area > 1:
        return f"{out}: 'anomalib-defects inspect' applies the minimum area; anomalib itself uses the threshold alone"
    if not decides:
        return (
            f"{out}: masks use the threshold; the model scores an image by other means than its highest pixel, so that "
            "its verdicts are as before: use RegionPostProcessor for verdicts that follow from the masks"
        )
    count = _check_verdicts(out, scorer, choice, precision)
    return f"{out}: decides as stated on the {counted(count, 'image')} closest to the threshold"


def graph_thresholds(choice: Choice) -> GraphThresholds:
    """Return the thresholds to write into a graph."""
    threshold = choice.point.threshold
    return GraphThresholds(pixel=threshold) if choice.pixel else GraphThresholds(image=threshold)


def _write_checkpoint(
    model: Path, out: Path, scorer: CheckpointScorer, choice: Choice, image_threshold: float | None
) -> None:
    import torch
    from anomalib.post_processing import PostProcessor
    from anomalib.utils.serialization import anomalib_safe_globals

    from anomalib_defect_plugins.post_processing import set_thresholds

    module, threshold = scorer.module, choice.point.threshold
    post_processor = cast(PostProcessor, module.post_processor)
    value_range = (float(min(choice.scores.min(), threshold)), float(max(choice.scores.max(), threshold)))
    set_thresholds(post_processor, image_threshold, threshold if choice.pixel else None, value_range)
    with anomalib_safe_globals(extra=type(module).checkpoint_safe_globals()):
        content: dict[str, Any] = torch.load(model, map_location="cpu", weights_only=True)
    prefix = "post_processor."
    content["state_dict"] |= {prefix + name: value for name, value in post_processor.state_dict().items()}
    content["anomalib_post_processor_config"] = post_processor.checkpoint_config()
    content[OPERATING_POINT_KEY] = choice.record()
    try:
        with atomic_path(out, sync=True) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's, for a full disk
        msg = f"cannot write {out} ({getattr(error, 'strerror', None) or error}); choose another file (--write)"
        raise InvalidInputError(msg) from error


def _check_verdicts(out: Path, scorer: ImageScorer, choice: Choice, precision: str | None) -> int:
    """Compare the verdicts of a written model with the stated ones, and return the number of images."""
    name = type(scorer.module).__name__ if isinstance(scorer, CheckpointScorer) else None
    written = load_scorer(out, name, precision)
    closest = np.argsort(np.abs(choice.scores - choice.point.threshold), kind="stable")[:MAX_CHECKED]
    for index in closest:
        path, score = choice.images[index].path, choice.scores[index]
        if written.verdict(path) != bool(score >= choice.point.threshold):
            msg = (
                f"{out} decides otherwise on {path}, whose score {score:.9g} is too close to the threshold "
                f"{choice.point.threshold:.9g} for its precision; choose another threshold, or --precision f32"
            )
            raise InvalidInputError(msg)
    return len(closest)


def _unchanged(rate: Rate, confidence: float) -> Rate:
    del confidence
    return rate


def _as_json(rate: Rate | None) -> Mapping[str, float] | None:
    return None if rate is None else {**asdict(rate), "rate": rate.value}
