"""How figures, costs and settings are called and written."""

from collections.abc import Iterable

from anomalib_defect_plugins.report.statistics import Measured

LEVELS = ("image", "pixel")
"""What a figure is about; its name begins with it."""

PREFERRED = ("AUROC", "F1Score", "IoU")
"""Which figure of a level stands for it in plots: the first of these that was measured."""

LOWER_IS_BETTER = ("loss", "error", "fpr", "fnr")
"""Ends of the names of figures of which less is better."""


COSTS = {
    "train_seconds": "training",
    "test_seconds": "test",
    "peak_host_bytes": "peak memory",
    "peak_gpu_bytes": "peak GPU memory",
    "parameters": "parameters",
    "buffers": "buffers",
    "flops": "FLOPs an image",
}
"""What a cost is called, by its name in ``run.json``."""

UNITS = {
    "train_seconds": (1, "s"),
    "test_seconds": (1, "s"),
    "peak_host_bytes": (2**30, "GiB"),
    "peak_gpu_bytes": (2**30, "GiB"),
    "parameters": (1e6, "M"),
    "buffers": (1e6, "M"),
    "flops": (1e9, "G"),
}
"""Size and name of the unit in which a cost is shown."""

MISSING = "–"

SHARED = "†"
"""Stands beside a time that was measured while the machine may have had other runs."""


def figure_title(name: str) -> str:
    """Write the name of a figure: ``image_AUROC`` as ``image AUROC``."""
    return name.replace("_", " ")


def level_of(name: str) -> str:
    """What a figure is about: ``image``, ``pixel`` or, for any other name, nothing."""
    level = name.partition("_")[0]
    return level if level in LEVELS else ""


def primary_figures(names: Iterable[str]) -> list[str]:
    """Choose the figures that stand for all: one of each level, or the first if no name has a level."""
    names = list(names)
    chosen = []
    for level in LEVELS:
        of_level = [name for name in names if level_of(name) == level]
        preferred = [f"{level}_{name}" for name in PREFERRED if f"{level}_{name}" in of_level]
        chosen += (preferred or of_level)[:1]
    return chosen or names[:1]


def is_higher_better(name: str) -> bool:
    """Whether more of a figure is better."""
    return not name.lower().endswith(LOWER_IS_BETTER)


def three_digits(value: float) -> str:
    """Write a figure between 0 and 1."""
    return f"{value:.3f}"


def three_significant(value: float) -> str:
    """Write a number that may be of any size: 0.123, 12.3, 123, 12300."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        text = f"{value:#.3g}" if abs(value) < 100 else f"{value:.0f}"
        return text.rstrip(".")
    return f"{value:.1e}"


def with_spread(measured: Measured | None, write=three_digits) -> str:
    """Write mean and spread to the same decimal: ``0.912 ± 0.004``; without the spread for one seed."""
    if measured is None:
        return MISSING
    mean = write(measured.mean)
    if measured.spread is None:
        return mean
    decimals = len(mean.partition(".")[2])
    return f"{mean} ± {write(measured.spread) if 'e' in mean else f'{measured.spread:.{decimals}f}'}"


def in_units(name: str, measured: Measured | None) -> Measured | None:
    """Give a cost in the unit in which it is shown; without a spread if it never varies, as a count does."""
    if measured is None:
        return None
    size, _ = UNITS.get(name, (1, ""))
    spread = measured.spread / size if measured.spread else None
    return Measured(measured.mean / size, spread, measured.count)


def cost_title(name: str) -> str:
    """Write the name of a cost with its unit: ``training, s``."""
    unit = UNITS.get(name, (1, ""))[1]
    return ", ".join(filter(None, (COSTS.get(name, name.replace("_", " ")), unit)))


def and_list(words: Iterable[str]) -> str:
    """Write words as in a sentence: ``a, b and c``."""
    *others, last = list(words) or [""]
    return f"{', '.join(others)} and {last}" if others else last
