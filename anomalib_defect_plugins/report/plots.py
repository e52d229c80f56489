"""Plots: accuracy against latency, cost curves of operating points, heat maps of metrics, and cost."""

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from anomalib_defect_plugins.report.labels import (
    MISSING,
    SAW_LABELS,
    SHARED,
    and_list,
    cost_title,
    marked,
    metric_title,
    primary_metrics,
    three_digits,
    three_significant,
)
from anomalib_defect_plugins.report.plot_style import INK, MARKER_EDGE, MUTED, Mark, marks, plot_style
from anomalib_defect_plugins.report.statistics import CallTimes, MeanSpread, pareto_front
from anomalib_defect_plugins.report.summary import Summary
from anomalib_defect_plugins.report.tested_images import ErrorRates, error_rates
from anomalib_defect_plugins.results.record import setting_title

PLOTTED_COSTS = ("train_seconds", "peak_host_bytes", "parameters")

LOG_SCALE_RATIO = 20
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""

MAX_LABEL_LENGTH = 36
"""Characters of a label after which it is cut off."""

MAX_DATA_TITLE_LENGTH = 32
"""Characters of the list of data sets from which their number is shown instead."""

HEAT_MAP_COLOURS = "cividis"
"""Colour map of heat maps; dark in its lower half."""

FRONT_LINE: dict[str, Any] = {"color": MUTED, "linewidth": 1.2, "linestyle": (0, (4, 3))}
"""Style of a Pareto front."""


COST_RATIOS = np.geomspace(1 / 300, 300, 121)
"""Ratios of costs that cost curves are drawn at, shape (K,)."""

USELESS_LINE: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": ":"}
"""Style of the cost of accepting or rejecting all parts."""


@dataclass(frozen=True)
class Panel:
    """Accuracy against latency of comparable models.

    Args:
        metric: Name of the metric of accuracy.
        supervision: Label of the supervision.
        data: Labels of the data sets that accuracy is averaged over.
        points: Latency in ms and accuracy by model.
        times: Times of calls by model, with their spread.
    """

    metric: str
    supervision: str
    data: tuple[str, ...]
    points: dict[str, tuple[float, MeanSpread]]
    times: dict[str, CallTimes]

    @property
    def data_title(self) -> str:
        """Names of the data sets, or their number."""
        return _data_title(self.data)

    @property
    def front(self) -> list[str]:
        """Models on the Pareto front, from the fastest to the most accurate."""
        return pareto_front({name: (self.times[name], accuracy.mean) for name, (_, accuracy) in self.points.items()})


def _data_title(data: Sequence[str]) -> str:
    names = and_list(data)
    return names if len(names) < MAX_DATA_TITLE_LENGTH else f"mean of {len(data)} data sets"


def pareto_panels(summary: Summary) -> list[Panel]:
    """Build the panels; models share one if they have the same supervision and data sets."""
    panels: dict[tuple[str, tuple[str, ...], str], dict[str, tuple[float, MeanSpread]]] = {}
    for model, supervision in summary.pairs:
        latency = summary.latency(model)
        for metric in primary_metrics(summary.metrics):
            accuracy = summary.over_data(model, supervision, metric)
            if latency and accuracy:
                data = tuple(summary.by_data(model, supervision, metric))
                panels.setdefault((supervision, data, metric), {})[model] = latency.mean, accuracy
    times = {} if summary.latency_setting is None else summary.call_times(summary.latency_setting)
    return [Panel(metric, supervision, data, points, times) for (supervision, data, metric), points in panels.items()]


def draw_pareto(summary: Summary, narrow: bool = False) -> Figure | None:
    """Draw accuracy against latency, for a narrow or a wide page; ``None`` if no latency was measured."""
    panels = pareto_panels(summary)
    if not panels or summary.latency_setting is None:
        return None
    style = marks(summary.models)
    with plot_style():
        figure, axes = _grid(len(panels), narrow, height=2.9 if narrow else 3.2)
        for axis, panel in zip(axes, panels, strict=True):
            _draw_panel(axis, panel, style)
            axis.set_title(textwrap.fill(_panel_title(panel, summary), 44 if narrow else 72))
            axis.set(xlabel=_latency_title(summary), ylabel=_shorten(metric_title(panel.metric)))
        shown = [model for model in summary.models if any(model in panel.points for panel in panels)]
        handles = [_handle(model, style[model]) for model in shown]
        _add_legend(figure, [*handles, Line2D([], [], label="Pareto front", **FRONT_LINE)], narrow)
    return figure


def _latency_title(summary: Summary) -> str:
    if summary.latency_setting is None:
        return ""
    engine, precision, device, batch = summary.latency_setting
    shared = f" {SHARED}" if any(summary.is_shared(model) for model in summary.models) else ""
    return f"median latency, ms ({setting_title(engine, precision)}, {device}, batch {batch}){shared}"


def _panel_title(panel: Panel, summary: Summary) -> str:
    parts = [
        panel.data_title if len(summary.data) > 1 else "",
        panel.supervision if len(summary.supervisions) > 1 else "",
    ]
    return " · ".join([metric_title(panel.metric), *map(_shorten, filter(None, parts))])


def _grid(count: int, narrow: bool, height: float) -> tuple[Figure, list[Axes]]:
    columns = 1 if narrow or count == 1 else 2
    lines = math.ceil(count / columns)
    width = 3.9 if narrow else 11.6 if columns == 2 else 7.2
    size = (width, lines * height + (1.0 if narrow else 0.5))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.12))
    axes = list(figure.subplots(lines, columns, squeeze=False).flatten())
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _draw_panel(axis: Axes, panel: Panel, style: dict[str, Mark]) -> None:
    front = [(panel.points[model][0], panel.points[model][1].mean) for model in panel.front]
    # A step, because between two points of the front only the lower accuracy is available.
    axis.step(*zip(*front, strict=True), where="post", zorder=1, **FRONT_LINE)
    for model, (time, accuracy) in panel.points.items():
        colour, shape = style[model]
        spread = accuracy.spread or None
        axis.errorbar(time, accuracy.mean, spread, color=colour, elinewidth=1.4, capsize=3, zorder=2)
        on_front = model in panel.front
        axis.plot(time, accuracy.mean, shape, color=colour, markersize=9 if on_front else 7, zorder=3,
                  markeredgecolor=INK, markeredgewidth=1.1 if on_front else 0.4)  # fmt: skip
    _set_scale(axis, [time for time, _ in panel.points.values()])
    axis.margins(0.12)
    if axis.get_xscale() == "linear":
        axis.set_xlim(left=0)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def _set_scale(axis: Axes, values: Iterable[float]) -> None:
    values = [value for value in values if value > 0]
    if values and max(values) > LOG_SCALE_RATIO * min(values):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 300 * min(values) else (1,)))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _handle(model: str, mark: Mark) -> Line2D:
    shape: dict[str, Any] = {"marker": mark.shape, "markersize": 7, **MARKER_EDGE}
    return Line2D([], [], color=mark.colour, linestyle="none", label=_shorten(model), **shape)


def _add_legend(figure: Figure, handles: list[Line2D], narrow: bool) -> None:
    columns = 2 if narrow else 5
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handletextpad=0.4)


def cost_panels(summary: Summary) -> dict[tuple[str, tuple[str, ...]], dict[str, ErrorRates]]:
    """Return the error rates of each model, averaged over the data sets, by supervision and data sets."""
    panels: dict[tuple[str, tuple[str, ...]], dict[str, ErrorRates]] = {}
    for model, supervision in summary.pairs:
        rows = summary.rows_of(model, supervision)
        rates = {row.data: rates for row in rows if (rates := error_rates(row.records[0])) is not None}
        if rates:
            panels.setdefault((supervision, tuple(rates)), {})[model] = ErrorRates(*np.mean([*rates.values()], axis=0))
    return panels


def draw_cost_curves(summary: Summary, narrow: bool = False) -> Figure | None:
    """Draw the expected cost at the threshold of each model by the ratio of the costs of both kinds of errors.

    The scale is that of Drummond and Holte (Machine Learning 2006), where a wrong decision about every part costs 1.
    """
    panels = cost_panels(summary)
    if not panels:
        return None
    style = marks(summary.models)
    with plot_style():
        figure, axes = _grid(len(panels), narrow, height=2.9 if narrow else 3.2)
        for axis, ((supervision, data), rates) in zip(axes, panels.items(), strict=True):
            _draw_cost_curves(axis, rates, style)
            parts = [_data_title(data)] + ([supervision] if len(summary.supervisions) > 1 else [])
            axis.set_title(textwrap.fill(" · ".join(map(_shorten, parts)), 44 if narrow else 72))
        shown = [model for model in summary.models if any(model in rates for rates in panels.values())]
        handles = [_handle(model, style[model]) for model in shown]
        for handle, model in zip(handles, shown, strict=True):
            if any(row.saw_labels("image_F1Score") for row in summary.rows if row.model == model):
                handle.set_label(f"{handle.get_label()} {SAW_LABELS}")
        _add_legend(figure, [*handles, Line2D([], [], label="accept or reject all", **USELESS_LINE)], narrow)
    return figure


def _draw_cost_curves(axis: Axes, rates: Mapping[str, ErrorRates], style: dict[str, Mark]) -> None:
    for index, (model, (misses, false_alarms)) in enumerate(rates.items()):
        colour, shape = style[model]
        cost = (misses * COST_RATIOS + false_alarms) / (COST_RATIOS + 1)
        # Marks at different places, because curves may coincide.
        axis.plot(COST_RATIOS, cost, color=colour, marker=shape, markevery=(5 * index % 20, 20), markersize=5)
    axis.plot(COST_RATIOS, np.minimum(COST_RATIOS, 1) / (COST_RATIOS + 1), **USELESS_LINE)
    axis.set(
        xscale="log", ylabel="expected cost", xlabel="cost of missing all defects to cost of rejecting all good parts"
    )
    axis.set_ylim(bottom=0)
    axis.set_xticks([0.01, 0.1, 1, 10, 100], ["1:100", "1:10", "1:1", "10:1", "100:1"])


def draw_categories(summary: Summary, narrow: bool = False) -> Figure | None:
    """Draw the primary metrics of each model and supervision (rows) on each data set (columns)."""
    del narrow  # the page shows HTML tables instead
    metrics = primary_metrics(summary.metrics)
    if not metrics:
        return None
    titles, data = [_shorten(pair_title(pair, summary)) for pair in summary.pairs], [*map(_shorten, summary.data)]
    # Inches per character of the labels (those of the data are slanted), and per cell.
    letters = [max(map(len, labels)) for labels in (titles, data)]
    size = 0.9 + 0.085 * letters[0] + 0.06 * letters[1] + 0.75 * len(data), 0.7 + 0.06 * letters[1] + 0.4 * len(titles)
    with plot_style():
        figure = Figure(figsize=(size[0], size[1] * len(metrics)), layout="constrained")
        for axis, name in zip(figure.subplots(len(metrics), squeeze=False).flatten(), metrics, strict=True):
            values = [summary.by_data(*pair, name) for pair in summary.pairs]
            seen = [summary.data_with_seen_labels(*pair, name) for pair in summary.pairs]
            planes = (
                [[row.get(item, math.nan) for item in summary.data] for row in values],
                [[item in saw for item in summary.data] for saw in seen],
            )
            _draw_heat_map(axis, *map(np.array, planes))
            axis.set_xticks(range(len(data)), data, rotation=40, ha="left", rotation_mode="anchor")
            axis.set_yticks(range(len(titles)), titles)
            axis.set_title(_shorten(metric_title(name)))
    return figure


def pair_title(pair: tuple[str, str], summary: Summary) -> str:
    """Format a pair of model and supervision, without the supervision if there is only one."""
    return " · ".join(pair if len(summary.supervisions) > 1 else pair[:1])


def _draw_heat_map(axis: Axes, values: npt.NDArray[np.float64], saw_labels: npt.NDArray[np.bool_]) -> None:
    low = lowest_tenth(values.flatten())
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.imshow(values, cmap=HEAT_MAP_COLOURS, vmin=low, vmax=1, aspect="auto")
    axis.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    for (line, column), value in np.ndenumerate(values):
        text = MISSING if math.isnan(value) else marked(three_digits(value), bool(saw_labels[line, column]))
        axis.text(column, line, text, ha="center", va="center", fontsize=8.5, color=_text_colour(value, low))


def _text_colour(value: float, low: float) -> str:
    if math.isnan(value):
        return INK
    return "white" if value < (low + 1) / 2 else INK


def lowest_tenth(values: Iterable[float]) -> float:
    """Return the lower end of a colour scale for values in [0, 1]: the minimum, rounded down to a tenth."""
    lowest = min((value for value in values if not math.isnan(value)), default=0.0)
    return min(0.9, math.floor(10 * lowest) / 10)


def draw_cost(summary: Summary, narrow: bool = False) -> Figure | None:
    """Draw the cost of training: seconds, memory and parameters, averaged over data sets and seeds."""
    costs = {name: [summary.cost(*pair, name) for pair in summary.pairs] for name in PLOTTED_COSTS}
    costs = {name: values for name, values in costs.items() if any(values)}
    if not costs:
        return None
    titles = [_shorten(pair_title(pair, summary)) for pair in summary.pairs]
    with plot_style():
        height = 0.75 + 0.3 * len(titles)
        shape = (len(costs), 1) if narrow else (1, len(costs))
        size = (3.9, height * len(costs)) if narrow else (11.6, height)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(*shape, squeeze=False).flatten()
        for index, (axis, (name, values)) in enumerate(zip(axes, costs.items(), strict=True)):
            _draw_cost(axis, [model for model, _ in summary.pairs], values, marks(summary.models))
            axis.set_title(cost_title(name))
            axis.set_yticks(range(len(titles)), titles if narrow or index == 0 else [""] * len(titles))
    return figure


def _draw_cost(axis: Axes, models: Sequence[str], values: Sequence[MeanSpread | None], style: dict[str, Mark]) -> None:
    axis.set_ylim(len(models) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    for line, (model, value) in enumerate(zip(models, values, strict=True)):
        if value is not None:
            colour, shape = style[model]
            axis.plot(value.mean, line, shape, color=colour, markersize=7.5, **MARKER_EDGE)
            axis.annotate(three_significant(value.mean), (value.mean, line), (8, 0), textcoords="offset points",
                          va="center", fontsize=8.5, color=MUTED)  # fmt: skip
    known = [value.mean for value in values if value is not None]
    _set_scale(axis, known)
    if axis.get_xscale() == "linear":
        axis.set_xlim(0, 1.3 * max(known) or 1)
    else:
        axis.set_xlim(min(known) / 1.6, max(known) * 4)


def _shorten(label: str) -> str:
    """Shorten a label to fit beside an axis, and replace characters that cannot be drawn."""
    printable = "".join(letter if letter.isprintable() else " " for letter in label)
    return printable if len(printable) <= MAX_LABEL_LENGTH else f"{printable[: MAX_LABEL_LENGTH - 1]}…"


PLOTS: dict[str, Callable[[Summary, bool], Figure | None]] = {
    "pareto": draw_pareto,
    "categories": draw_categories,
    "cost": draw_cost,
    "cost_curve": draw_cost_curves,
}
"""Functions that draw the plots, by file name."""


def render(figure: Figure, kind: str) -> bytes:
    """Render a figure as ``svg`` or ``png``; equal figures give equal bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with plot_style():
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()
