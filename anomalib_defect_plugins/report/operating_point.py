"""The picture of an operating point: scores of good and defective images, the threshold, and the cost."""

import io

import numpy as np
from matplotlib.figure import Figure

from anomalib_defect_plugins.core.operating_points import Costs, OperatingPoint, Scores, error_counts
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.report.plot_style import INK, MUTED, PALETTE, plot_style

BINS = 60
"""Bins of a histogram."""


def draw_histogram(good: Scores, bad: Scores, point: OperatingPoint, units: str, costs: Costs | None = None) -> Figure:
    """Draw the histogram of the scores, and the cost of every threshold if costs are known.

    Args:
        good: Scores of good images, shape (N,).
        bad: Scores of defective images, shape (M,).
        point: The operating point.
        units: Units of the scores.
        costs: Costs of errors.
    """
    with plot_style():
        figure = Figure(figsize=(7.2, 3.6 if costs is None else 5.4), layout="constrained")
        axes = figure.subplots(1 if costs is None else 2, squeeze=False, sharex=True).flatten()
        everything = np.append(np.concatenate([good, bad]), point.threshold)
        bins = np.linspace(everything.min(), everything.max(), BINS + 1) if np.ptp(everything) else BINS
        for scores, name, colour in ((good, "good", PALETTE[0]), (bad, "defective", PALETTE[3])):
            if len(scores):
                axes[0].hist(scores, bins, color=colour, alpha=0.6, label=counted(len(scores), f"{name} image"))
        axes[0].set_ylabel("images")
        if costs is not None:
            thresholds, misses, false_alarms = error_counts(good, bad)
            cost = costs.per_part(misses / len(bad), false_alarms / len(good))
            axes[1].step(thresholds, cost, color=MUTED, where="pre")
            axes[1].set_ylabel("expected cost of a part")
        for axis in axes:
            axis.axvline(point.threshold, color=INK, linewidth=1.2, label=f"threshold {point.threshold:.4g}")
        axes[-1].set_xlabel(units)
        axes[0].legend()
    return figure


def render_png(figure: Figure) -> bytes:
    """Render a figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with plot_style():
        figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()
