"""Titles and number formats of metrics, costs and settings."""

from collections.abc import Callable, Iterable

from anomalib_defect_plugins.report.statistics import MeanSpread

LEVELS = ("image", "pixel")
"""Levels of metrics; the name of a metric begins with its level."""

PREFERRED_METRICS = ("AUROC", "F1Score", "IoU")
"""Metrics that represent a level in plots and in the summary; the first one available is used."""

LOWER_IS_BETTER = ("loss", "error", "fpr", "fnr")
"""Suffixes of the names of metrics of which lower values are better."""

COSTS = {
    "train_seconds": "training",
    "test_seconds": "test",
    "peak_host_bytes": "peak memory",
    "peak_gpu_bytes": "peak GPU memory",
    "parameters": "parameters",
    "buffers": "buffers",
    "flops": "FLOPs per image",
}
"""Titles of costs by their name in ``run.json``."""

UNITS = {
    "train_seconds": (1, "s"),
    "test_seconds": (1, "s"),
    "peak_host_bytes": (2**30, "GiB"),
    "peak_gpu_bytes": (2**30, "GiB"),
    "parameters": (1e6, "M"),
    "buffers": (1e6, "M"),
    "flops": (1e9, "G"),
}
"""Size and name of the unit that a cost is shown in."""

AT_THRESHOLD = ("F1Score", "Precision", "Recall", "Accuracy", "IoU", "MeanIoU")
"""Metrics of labels and masks, which depend on the thresholds; without the level."""

BEST_THRESHOLD = ("F1Max",)
"""Metrics at the threshold that is best on the labels of the test images."""

MISSING = "–"
"""Text of an unknown value."""

SAW_LABELS = "‡"
"""Marks a metric whose threshold was chosen on the labels of the test images, so that it is too high."""

SHARED = "†"
"""Marks a time that was measured while other runs may have used the machine."""


def metric_title(name: str) -> str:
    """Format the name of a metric: ``image_AUROC`` as ``image AUROC``."""
    return name.replace("_", " ")


def level_of(name: str) -> str:
    """Return the level of a metric: ``image``, ``pixel``, or an empty string for any other name."""
    level = name.partition("_")[0]
    return level if level in LEVELS else ""


def primary_metrics(names: Iterable[str]) -> list[str]:
    """Select one metric of each level, or the first metric if no name has a level."""
    names = list(names)
    primary = []
    for level in LEVELS:
        of_level = [name for name in names if level_of(name) == level]
        preferred = [f"{level}_{name}" for name in PREFERRED_METRICS if f"{level}_{name}" in of_level]
        primary += (preferred or of_level)[:1]
    return primary or names[:1]


def is_higher_better(name: str) -> bool:
    """Whether higher values of a metric are better."""
    return not name.lower().endswith(LOWER_IS_BETTER)


def three_digits(value: float) -> str:
    """Format a metric in [0, 1] with three decimals."""
    return f"{value:.3f}"


def three_significant(value: float) -> str:
    """Format a number of any size with three significant digits: 0.123, 12.3, 123, 12300."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        text = f"{value:#.3g}" if abs(value) < 100 else f"{value:.0f}"
        return text.rstrip(".")
    return f"{value:.1e}"


def marked(text: str, saw_labels: bool) -> str:
    """Mark the text of a metric whose threshold was chosen on the labels of the test images."""
    return f"{text} {SAW_LABELS}" if saw_labels else text


def with_spread(value: MeanSpread | None, write: Callable[[float], str] = three_digits) -> str:
    """Format mean and spread to the same decimal: ``0.912 ± 0.004``; without the spread for one seed."""
    if value is None:
        return MISSING
    mean = write(value.mean)
    if value.spread is None:
        return mean
    decimals = len(mean.partition(".")[2])
    return f"{mean} ± {write(value.spread) if 'e' in mean else f'{value.spread:.{decimals}f}'}"


def in_units(name: str, value: MeanSpread | None) -> MeanSpread | None:
    """Convert a cost to the unit that it is shown in, without a spread of 0: counts do not vary."""
    if value is None:
        return None
    unit, _ = UNITS.get(name, (1, ""))
    return MeanSpread(value.mean / unit, value.spread / unit if value.spread else None, value.size)


def cost_title(name: str) -> str:
    """Format the name of a cost with its unit: ``training, s``."""
    unit = UNITS.get(name, (1, ""))[1]
    return ", ".join(filter(None, (COSTS.get(name, name.replace("_", " ")), unit)))


def and_list(words: Iterable[str]) -> str:
    """Join words for a sentence: ``a, b and c``."""
    *others, last = list(words) or [""]
    return f"{', '.join(others)} and {last}" if others else last
