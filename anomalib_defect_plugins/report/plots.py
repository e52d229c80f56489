"""The plots: accuracy against latency, categories, and cost."""

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from anomalib_defect_plugins.report.labels import (
    SHARED,
    and_list,
    cost_title,
    figure_title,
    primary_figures,
    three_digits,
    three_significant,
)
from anomalib_defect_plugins.report.plot_style import INK, MUTED, Mark, marks, plot_style
from anomalib_defect_plugins.report.statistics import Measured, pareto_front
from anomalib_defect_plugins.report.summary import Summary
from anomalib_defect_plugins.results.record import setting_title

PLOTTED_COSTS = ("train_seconds", "peak_host_bytes", "parameters")

LOGARITHMIC = 20
"""Values whose greatest is so many times their least are drawn on a logarithmic axis."""

LONGEST = 36
"""So many letters of a label are drawn."""


@dataclass(frozen=True)
class Panel:
    """Accuracy against latency, of models that may be compared.

    Args:
        figure: Name of the figure of accuracy.
        supervision: Label of the supervision.
        data: Labels of the data that the accuracy is the mean of.
        points: Latency in ms and accuracy by model.
    """

    figure: str
    supervision: str
    data: tuple[str, ...]
    points: dict[str, tuple[float, Measured]]

    @property
    def data_title(self) -> str:
        """Names of the data, or how many there are."""
        names = and_list(self.data)
        return names if len(names) < 32 else f"mean of {len(self.data)} data sets"

    @property
    def front(self) -> list[str]:
        """Models that no other beats, from the fastest to the most accurate."""
        return pareto_front({model: (time, accuracy.mean) for model, (time, accuracy) in self.points.items()})


def pareto_panels(summary: Summary) -> list[Panel]:
    """Make the panels: models are in one if they have the same supervision and data."""
    found: dict[tuple[str, tuple[str, ...], str], dict[str, tuple[float, Measured]]] = {}
    for model, supervision in summary.lines:
        latency = summary.latency(model)
        for figure in primary_figures(summary.figures):
            accuracy = summary.over_data(model, supervision, figure)
            if latency and accuracy:
                data = tuple(summary.by_data(model, supervision, figure))
                found.setdefault((supervision, data, figure), {})[model] = latency.mean, accuracy
    return [Panel(figure, supervision, data, points) for (supervision, data, figure), points in found.items()]


def draw_pareto(summary: Summary, narrow: bool = False) -> Figure | None:
    """Draw accuracy against latency, for a narrow page or a wide one; ``None`` if no latency was measured."""
    panels = pareto_panels(summary)
    if not panels:
        return None
    engine, precision, device, batch = summary.setting
    shared = f" {SHARED}" if any(summary.is_shared(model) for model in summary.models) else ""
    latency = f"median latency, ms ({setting_title(engine, precision)}, {device}, batch {batch}){shared}"
    with plot_style():
        figure, axes = _grid(len(panels), narrow, height=2.9 if narrow else 3.2)
        for axis, panel in zip(axes, panels, strict=True):
            _draw_panel(axis, panel, marks(summary.models))
            axis.set_title(textwrap.fill(_short_title(panel, summary), 44 if narrow else 72))
            axis.set(xlabel=latency, ylabel=_short(figure_title(panel.figure)))
        shown = [model for model in summary.models if any(model in panel.points for panel in panels)]
        _legend(figure, [_handle(model, marks(summary.models)[model]) for model in shown], narrow)
    return figure


def _short_title(panel: Panel, summary: Summary) -> str:
    parts = [
        panel.data_title if len(summary.data) > 1 else "",
        panel.supervision if len(summary.supervisions) > 1 else "",
    ]
    return " · ".join([figure_title(panel.figure), *map(_short, filter(None, parts))])


def _grid(count: int, narrow: bool, height: float) -> tuple[Figure, Sequence[Axes]]:
    columns = 1 if narrow or count == 1 else 2
    lines = math.ceil(count / columns)
    width = 3.9 if narrow else 11.6 if columns == 2 else 7.2
    figure = Figure(figsize=(width, lines * height + (1.0 if narrow else 0.5)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.12)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _draw_panel(axis: Axes, panel: Panel, style: dict[str, Mark]) -> None:
    front = [(panel.points[model][0], panel.points[model][1].mean) for model in panel.front]
    # A step: between two points of the front only the lesser accuracy is had.
    axis.step(*zip(*front, strict=True), where="post", color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    for model, (time, accuracy) in panel.points.items():
        colour, shape = style[model]
        spread = accuracy.spread or None
        axis.errorbar(time, accuracy.mean, spread, color=colour, elinewidth=1.4, capsize=3, zorder=2)
        on_front = model in panel.front
        axis.plot(time, accuracy.mean, shape, color=colour, markersize=9 if on_front else 7, zorder=3,
                  markeredgecolor=INK, markeredgewidth=1.1 if on_front else 0.4)  # fmt: skip
    _scale(axis, [time for time, _ in panel.points.values()])
    axis.margins(0.12)
    if axis.get_xscale() == "linear":
        axis.set_xlim(left=0)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def _scale(axis: Axes, values: Iterable[float]) -> None:
    values = [value for value in values if value > 0]
    if values and max(values) > LOGARITHMIC * min(values):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 300 * min(values) else (1,)))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _handle(model: str, mark: Mark) -> Line2D:
    edge = {"markeredgecolor": INK, "markeredgewidth": 0.4}
    return Line2D(
        [], [], color=mark.colour, marker=mark.shape, linestyle="none", markersize=7, label=_short(model), **edge
    )


def _legend(figure: Figure, handles: list[Line2D], narrow: bool) -> None:
    front = Line2D([], [], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label="Pareto front")
    columns = 2 if narrow else 5
    figure.legend(handles=[*handles, front], loc="outside lower center", ncols=columns, handletextpad=0.4)


def draw_categories(summary: Summary, narrow: bool = False) -> Figure | None:
    """Draw the primary figures of each model and supervision (rows) on each data set (columns)."""
    del narrow  # the page has a table in its place
    figures = primary_figures(summary.figures)
    if not figures:
        return None
    titles, data = [_short(line_title(line, summary)) for line in summary.lines], [*map(_short, summary.data)]
    # The labels, at so many inches a letter, and the cells; the labels of the data lean.
    letters = [max(map(len, labels)) for labels in (titles, data)]
    size = 0.9 + 0.085 * letters[0] + 0.06 * letters[1] + 0.75 * len(data), 0.7 + 0.06 * letters[1] + 0.4 * len(titles)
    with plot_style():
        figure = Figure(figsize=(size[0], size[1] * len(figures)), layout="constrained")
        for axis, name in zip(figure.subplots(len(figures), squeeze=False).flatten(), figures, strict=True):
            found = [summary.by_data(*line, name) for line in summary.lines]
            _draw_heat_map(axis, np.array([[row.get(it, math.nan) for it in summary.data] for row in found]))
            axis.set_xticks(range(len(data)), data, rotation=40, ha="left", rotation_mode="anchor")
            axis.set_yticks(range(len(titles)), titles)
            axis.set_title(_short(figure_title(name)))
    return figure


def line_title(line: tuple[str, str], summary: Summary) -> str:
    """Name a model, and its supervision where there are several."""
    return " · ".join(line if len(summary.supervisions) > 1 else line[:1])


def _draw_heat_map(axis: Axes, values: np.ndarray) -> None:
    low = scale_of(values.flatten())
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.imshow(values, cmap="cividis", vmin=low, vmax=1, aspect="auto")
    axis.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    for (line, column), value in np.ndenumerate(values):
        text = "–" if math.isnan(value) else three_digits(value)
        # cividis is dark in its lower half.
        colour = None if math.isnan(value) else "white" if value < (low + 1) / 2 else "#1c2024"
        axis.text(column, line, text, ha="center", va="center", fontsize=8.5, **({"color": colour} if colour else {}))


def scale_of(values: Iterable[float]) -> float:
    """Give the lower end of the colours of values in [0, 1]: the least value, rounded down to a tenth."""
    least = min((value for value in values if not math.isnan(value)), default=0.0)
    return min(0.9, math.floor(10 * least) / 10)


def draw_cost(summary: Summary, narrow: bool = False) -> Figure | None:
    """Draw what training took: seconds, memory, parameters; the mean over data and seeds."""
    lines = summary.lines
    costs = {name: [summary.cost(*line, name) for line in lines] for name in PLOTTED_COSTS}
    costs = {name: found for name, found in costs.items() if any(found)}
    if not costs:
        return None
    with plot_style():
        height = 0.75 + 0.3 * len(lines)
        shape = (len(costs), 1) if narrow else (1, len(costs))
        size = (3.9, height * len(costs)) if narrow else (11.6, height)
        figure = Figure(figsize=size, layout="constrained")
        for axis, (name, values) in zip(figure.subplots(*shape, squeeze=False).flatten(), costs.items(), strict=True):
            _draw_cost(axis, lines, values, marks(summary.models))
            axis.set_title(cost_title(name))
            named = narrow or axis.get_subplotspec().is_first_col()
            axis.set_yticks(range(len(lines)), [_short(line_title(line, summary)) if named else "" for line in lines])
    return figure


def _draw_cost(
    axis: Axes,
    lines: Sequence[tuple[str, str]],
    values: Sequence[Measured | None],
    style: dict[str, Mark],
) -> None:
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    for at, ((model, _), value) in enumerate(zip(lines, values, strict=True)):
        if value is not None:
            colour, shape = style[model]
            edge = {"markeredgecolor": INK, "markeredgewidth": 0.4}
            axis.plot(value.mean, at, shape, color=colour, markersize=7.5, **edge)
            axis.annotate(three_significant(value.mean), (value.mean, at), (8, 0), textcoords="offset points",
                          va="center", fontsize=8.5, color=MUTED)  # fmt: skip
    known = [value.mean for value in values if value is not None]
    _scale(axis, known)
    if axis.get_xscale() == "linear":
        axis.set_xlim(0, 1.3 * max(known) or 1)
    else:
        axis.set_xlim(min(known) / 1.6, max(known) * 4)


def _short(label: str) -> str:
    """Give a label as it fits beside an axis, without what could not be drawn."""
    drawn = "".join(letter if letter.isprintable() else " " for letter in label)
    return drawn if len(drawn) <= LONGEST else f"{drawn[: LONGEST - 1]}…"


PLOTS: dict[str, Callable[[Summary, bool], Figure | None]] = {
    "pareto": draw_pareto,
    "categories": draw_categories,
    "cost": draw_cost,
}
"""The plots by the name of their file."""


def render(figure: Figure, kind: str) -> bytes:
    """Give a figure as ``svg`` or ``png``, the same bytes for the same figure."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with plot_style():
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()
