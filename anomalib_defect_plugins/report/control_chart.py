"""The picture of a drift check: a control chart of each quantity."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from anomalib_defect_plugins.report.plot_style import INK, PALETTE, plot_style

Limits = tuple[npt.NDArray[np.floating[Any]], float]
"""Moving averages of the images, shape (N,), and their limit."""


def draw_control_charts(charts: Mapping[str, Limits]) -> Figure:
    """Draw control charts, one below the other."""
    with plot_style():
        figure = Figure(figsize=(8, 1.5 * len(charts) + 0.6), layout="constrained")
        axes = figure.subplots(len(charts), squeeze=False, sharex=True).flatten()
        for axis, (name, (average, limit)) in zip(axes, charts.items(), strict=True):
            numbers = np.arange(1, len(average) + 1)
            axis.plot(numbers, average, color=PALETTE[0], linewidth=1)
            beyond = np.abs(average) > limit
            axis.plot(numbers[beyond], average[beyond], ".", color=PALETTE[3])
            for height in (-limit, limit):
                axis.axhline(height, color=INK, linewidth=0.8, linestyle="--")
            axis.set_title(name)
        axes[-1].set_xlabel("image")
        figure.supylabel("moving average, in standard deviations of the reference", fontsize=9)
    return figure
