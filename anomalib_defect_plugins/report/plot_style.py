"""Style of plots: colours that colour-blind readers can distinguish, the same for a model in every plot."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib import style

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#8A8A8A")
"""Okabe and Ito's colours, with grey instead of black, which would be invisible on a dark page."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "*", "<", ">")
"""Marker shapes. There are more shapes than colours, so that few pairs repeat."""


class Mark(NamedTuple):
    """Colour and marker shape of a model."""

    colour: str
    shape: str


def marks(models: Sequence[str]) -> dict[str, Mark]:
    """Assign a mark to each model."""
    return {
        name: Mark(PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]) for index, name in enumerate(models)
    }


PAGE, INK, MUTED, FAINT = "#ffffff", "#1c2024", "#5c6670", "#d9dde2"
"""Colours of the page, of text, of secondary text, and of axes and grids."""

DARK = {PAGE: "#14171a", INK: "#e6e8eb", MUTED: "#9aa3ad", FAINT: "#3a4048"}
"""The same colours on a dark page."""

MARKER_EDGE: dict[str, Any] = {"markeredgecolor": INK, "markeredgewidth": 0.4}
"""Outline of markers."""


@contextlib.contextmanager
def plot_style() -> Iterator[None]:
    """Use the style of the report within the block, independent of the user's matplotlib settings."""
    settings: dict[str, Any] = {
        "figure.facecolor": PAGE,
        "axes.facecolor": PAGE,
        "savefig.facecolor": PAGE,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "text.parse_math": False,  # a dollar sign in a label is no formula
        "svg.hashsalt": "report",  # equal plots give equal files
    }
    with style.context(["default", settings]):
        yield


def darken(svg: bytes) -> bytes:
    """Adapt an SVG plot to a dark page by replacing the colours of page, text and axes."""
    for light, dark in DARK.items():
        svg = svg.replace(light.encode(), dark.encode())
    return svg
