"""How plots look: colours that colour-blind readers tell apart, one and the same for a model wherever it appears."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib import style

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#8A8A8A")
"""Okabe and Ito's colours, with grey for black, which would be lost on a dark page."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "*", "<", ">")
"""Shapes for who sees no colours; more of them than colours, so that the pairs repeat late."""


class Mark(NamedTuple):
    """Colour and shape of a model."""

    colour: str
    shape: str


def marks(models: Sequence[str]) -> dict[str, Mark]:
    """Give each model its mark."""
    return {name: Mark(PALETTE[at % len(PALETTE)], MARKERS[at % len(MARKERS)]) for at, name in enumerate(models)}


PAGE, INK, MUTED, FAINT = "#ffffff", "#1c2024", "#5c6670", "#d9dde2"
"""Colours of the page, of text, of text of lesser rank, and of lines that should not draw attention."""

DARK = {PAGE: "#14171a", INK: "#e6e8eb", MUTED: "#9aa3ad", FAINT: "#3a4048"}
"""What these become on a dark page."""


@contextlib.contextmanager
def plot_style() -> Iterator[None]:
    """Draw plots of one look inside the block, whatever the user has set for matplotlib."""
    settings = {
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
        "text.parse_math": False,  # a dollar in a label is a dollar
        "svg.hashsalt": "report",  # the same file for the same figures
    }
    with style.context(["default", settings]):
        yield


def darkened(svg: bytes) -> bytes:
    """Give a plot for a dark page: as it is, but for the page, text and lines."""
    for light, dark in DARK.items():
        svg = svg.replace(light.encode(), dark.encode())
    return svg
