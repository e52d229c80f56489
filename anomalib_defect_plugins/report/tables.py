"""Tables of a report, as cells that are written to Markdown and to HTML."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from anomalib_defect_plugins.report.labels import (
    COSTS,
    LEVELS,
    MISSING,
    SHARED,
    cost_title,
    in_units,
    level_of,
    marked,
    metric_title,
    primary_metrics,
    three_digits,
    three_significant,
    with_spread,
)
from anomalib_defect_plugins.report.statistics import MeanSpread
from anomalib_defect_plugins.report.summary import Summary, SummaryRow, flatten
from anomalib_defect_plugins.results.record import setting_title

LABELS = ("model", "data", "supervision")
"""Columns of the labels of a row."""

LEVEL_TITLES = {"image": "Image level", "pixel": "Pixel level", "": "Other metrics"}
"""Titles of the tables of metrics."""

MAIN = ("pixel_AP",)
"""Metrics with a table by data set besides those of the summary: AUROC hardly depends on small defects."""

RANKING_METRIC = "image_AUROC"

AT_CHANCE = "§"
"""Mark of an image AUROC that is not clearly above that of a random ranking."""

CHANCE_SDS = 1.645
"""Standard deviations of a random ranking up to which an image AUROC is at chance: 5 % of random ones are above."""


@dataclass(frozen=True)
class Cell:
    """A cell.

    Args:
        text: Text of the cell.
        value: Sort key of the cell: a number, or the text.
        bold: Whether it is the best value.
        model: Model whose mark precedes the text.
        numeric: Whether it is a number.
    """

    text: str
    value: float | str | None = None
    bold: bool = False
    model: str | None = None
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        title: Title of the table.
        columns: Titles of the columns.
        rows: Rows of cells.
        breaks: Indices of the rows that start a new group.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]] = field(default_factory=list)
    breaks: frozenset[int] = frozenset()


def text_cell(text: object, model: str | None = None) -> Cell:
    """Create a cell of text."""
    return Cell(str(text), str(text).casefold(), model=model)


def number_cell(
    value: MeanSpread | None, write: Callable[[float], str] = three_significant, bold: bool = False
) -> Cell:
    """Create a cell of mean and spread."""
    return Cell(with_spread(value, write), None if value is None else value.mean, bold, numeric=True)


def time_cell(value: MeanSpread | None, shared: bool, bold: bool = False) -> Cell:
    """Create a cell of a time, marked if other runs may have used the machine."""
    cell = number_cell(value, bold=bold)
    return replace(cell, text=f"{cell.text} {SHARED}") if shared and value else cell


def count_cell(value: int | None) -> Cell:
    """Create a cell of an integer."""
    return Cell(MISSING if value is None else str(value), value, numeric=True)


def group_breaks(groups: Sequence[object]) -> frozenset[int]:
    """Return the indices of the rows that start a new group."""
    return frozenset(index for index in range(1, len(groups)) if groups[index] != groups[index - 1])


def metric_tables(summary: Summary) -> list[Table]:
    """Build a table of the metrics of each level."""
    names = {level: [name for name in summary.metrics if level_of(name) == level] for level in (*LEVELS, "")}
    return [_metric_table(summary, LEVEL_TITLES[level], of_level) for level, of_level in names.items() if of_level]


def _metric_table(summary: Summary, title: str, names: Sequence[str]) -> Table:
    rows = [row for row in summary.rows if any(row.metric(name) for name in names)]
    cells = [[*label_cells(row), *(metric_cell(summary, row, name) for name in names), seeds_cell(row)] for row in rows]
    columns = [*LABELS, *map(metric_title, names), "seeds"]
    return Table(title, columns, cells, group_breaks([row.group for row in rows]))


def label_cells(row: SummaryRow) -> list[Cell]:
    """Create the cells of the labels of a row."""
    return [text_cell(row.model, row.model), text_cell(row.data), text_cell(row.supervision)]


def metric_cell(summary: Summary, row: SummaryRow, name: str) -> Cell:
    """Create the cell of a metric, marked if the model is at chance or its threshold has seen test labels."""
    cell = number_cell(row.metric(name), three_digits, (row.model, *row.group, name) in summary.best)
    cell = replace(cell, text=f"{cell.text} {AT_CHANCE}") if name == RANKING_METRIC and is_at_chance(row) else cell
    return _marked(cell, row.saw_labels(name))


def _marked(cell: Cell, saw_labels: bool) -> Cell:
    return replace(cell, text=marked(cell.text, saw_labels and cell.value is not None))


def is_at_chance(row: SummaryRow) -> bool:
    """Whether the ranking of the test images of a row is not clearly better than a random one.

    The standard deviation of the AUROC of a random ranking is that of the statistic of Mann and Whitney (On a test of
    whether one of two random variables is stochastically larger than the other, 1947), for as many good images as
    defective ones, the case with the smallest one.
    """
    value, count = row.metric(RANKING_METRIC), row.records[0].split.get("test") or 0
    if value is None or not count or value.mean == 0:  # 0: there are no images of one of the two kinds
        return False
    return value.mean < 0.5 + CHANCE_SDS * math.sqrt((count + 1) / (3 * count**2))


def seeds_cell(row: SummaryRow) -> Cell:
    """Create the cell of the number of seeds."""
    return count_cell(len(row.records))


def summary_table(summary: Summary) -> Table | None:
    """Build the table of means over the data sets: a row for each model and supervision."""
    names = primary_metrics(summary.metrics)
    if not names:
        return None
    rows = [_summary_row(summary, *pair, names) for pair in summary.pairs]
    costs = [cost_title("train_seconds"), cost_title("parameters")]
    columns = ["model", "supervision", *map(metric_title, names), "latency, ms", *costs, "data sets"]
    return Table("Summary", columns, rows, group_breaks([supervision for _, supervision in summary.pairs]))


def _summary_row(summary: Summary, model: str, supervision: str, names: Sequence[str]) -> list[Cell]:
    rows = summary.rows_of(model, supervision)
    metrics = {name: summary.over_data(model, supervision, name) for name in names}
    data = {name: tuple(summary.by_data(model, supervision, name)) for name in names}
    best = {name: (model, data[name], supervision, name) in summary.best_over_data for name in names}
    costs = [summary.cost(model, supervision, name) for name in ("train_seconds", "parameters")]
    latency = summary.latency(model)
    return [
        text_cell(model, model),
        text_cell(supervision),
        *(
            _marked(number_cell(metrics[name], three_digits, best[name]), summary.saw_labels(model, supervision, name))
            for name in names
        ),
        time_cell(latency and latency._replace(spread=None), summary.is_shared(model), summary.fastest() == model),
        *(number_cell(value and value._replace(spread=None)) for value in costs),
        count_cell(len(rows)),
    ]


def data_tables(summary: Summary) -> list[Table]:
    """Build a table of each main metric: a row for each model and supervision, a column for each data set."""
    if len(summary.data) < 2:
        return []
    names = dict.fromkeys([*primary_metrics(summary.metrics), *(name for name in MAIN if name in summary.metrics)])
    columns = ["model", "supervision", *summary.data]
    breaks = group_breaks([supervision for _, supervision in summary.pairs])
    return [
        Table(
            f"{metric_title(name)} by data set",
            columns,
            [_data_row(summary, *pair, name) for pair in summary.pairs],
            breaks,
        )
        for name in names
    ]


def _data_row(summary: Summary, model: str, supervision: str, name: str) -> list[Cell]:
    rows = {row.data: row for row in summary.rows_of(model, supervision)}
    cells = [metric_cell(summary, rows[data], name) if data in rows else number_cell(None) for data in summary.data]
    values = [rows[data].metric(name) if data in rows else None for data in summary.data]
    counted = [
        replace(cell, text=f"{cell.text} ({value.size})") if value else cell
        for cell, value in zip(cells, values, strict=True)
    ]
    return [text_cell(model, model), text_cell(supervision), *counted]


def cost_table(summary: Summary) -> Table | None:
    """Build the table of the cost of training and test."""
    names = [name for name in COSTS if any(row.cost(name) for row in summary.rows)]
    if not names:
        return None
    rows = [
        [*label_cells(row), *(number_cell(in_units(name, row.cost(name))) for name in names), seeds_cell(row)]
        for row in summary.rows
    ]
    columns = [*LABELS, *map(cost_title, names), "seeds"]
    return Table("Cost of training and test", columns, rows, group_breaks([row.group for row in summary.rows]))


def failed_table(summary: Summary) -> Table | None:
    """Build the table of failed runs."""
    columns = ["model", "data", "supervision", "seed", "error", "run"]
    rows = [
        [
            *map(text_cell, summary.labels[record.key]),
            count_cell(record.run.seed),
            text_cell(_one_line(record.error)),
            text_cell(record.key),
        ]
        for record in summary.results.failed
    ]
    return Table("Failed runs", columns, rows) if rows else None


def environment_table(summary: Summary) -> Table | None:
    """Build the table of versions and hardware: a column for each environment of the runs."""
    records = summary.results.done + summary.results.failed
    # The date differs between all runs.
    environments = [
        {name: value for name, value in flatten(record.environment).items() if name != "date"} for record in records
    ]
    distinct = [item for index, item in enumerate(environments) if item and item not in environments[:index]]
    if not distinct:
        return None
    titles = [f"{environments.count(item)} of {len(environments)} runs" for item in distinct]
    names = dict.fromkeys(name for item in distinct for name in item)
    rows = [[text_cell(name), *(text_cell(_plain(item.get(name))) for item in distinct)] for name in names]
    return Table("Environment", ["", *titles], rows)


def _plain(value: str | None) -> str:
    return MISSING if value is None or value == "null" else value.strip('"')


def settings_of(summary: Summary, model: str) -> list[tuple[str, str]]:
    """Return the class of a model, its arguments and those of its trainer, by name."""
    record = next(row.records[0] for row in summary.rows if row.model == model)
    trainer = flatten({"trainer": record.run.trainer} if record.run.trainer else {})
    settings = {**flatten(record.run.model.init_args), **trainer}
    class_path = record.run.model.class_path or ""
    return [("class", class_path), *((name, _plain(value)) for name, value in settings.items())]


def commands(summary: Summary) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Return the commands that repeat the runs, failed ones too: seed and command, by model and row."""
    by_model: dict[str, dict[str, list[tuple[str, str]]]] = {model: {} for model in summary.models}
    done = [record for row in summary.rows for record in row.records]
    for record in (*done, *summary.results.failed):
        model, *others = summary.labels[record.key]
        runs = by_model.setdefault(model, {}).setdefault(" · ".join(others), [])
        command = _one_line(record.command) or MISSING
        runs.append((f"seed {record.run.seed}{' (failed)' if record.error else ''}", command))
    return by_model


def remarks(summary: Summary) -> list[str]:
    """Return what readers have to know about the origin of the results, one sentence each."""
    results = summary.results
    sentences = [
        f"The runs of {data} under {supervision} did not use the same images or sizes of masks, so none is marked as "
        "the best."
        for data, supervision in sorted(summary.incomparable)
    ]
    if weak := [f"{row.model} on {row.data} ({row.supervision})" for row in summary.rows if is_at_chance(row)]:
        sentences.append(
            f"{AT_CHANCE}: no better than chance, so that these runs show nothing about the method: training is too "
            f"short, or the method does not suit the data: {', '.join(weak)}."
        )
    at_model_size = sum(record.resolution == "model" for record in results.done)
    if 0 < at_model_size < len(results.done):
        sentences.append(
            f"{at_model_size} of {len(results.done)} runs compared maps with masks at the size of the model, as older "
            "versions did, and the others at that of the images: repeat them with --force to compare pixel metrics."
        )
    machines = {(record.environment.get("cpu"), record.environment.get("gpu")) for record in results.done}
    if len(machines) > 1:
        sentences.append(f"The runs used {len(machines)} kinds of machine, so their times are not comparable.")
    if any(record.shared for record in results.done):
        sentences.append(
            f"Several runs may have used one machine at the same time, so times are unreliable; {SHARED} marks "
            "latency. Measure it with --runner serial --force."
        )
    if results.other:
        sentences.append(
            f"{results.other} finished {'run is' if results.other == 1 else 'runs are'} not in results.csv and left "
            "out: from an earlier configuration, or finished just before an interruption (start the benchmark again)."
        )
    return sentences


def unmeasured(summary: Summary) -> list[str]:
    """Return why latencies are missing, one sentence for each model and setting."""
    sentences: dict[str, None] = {}
    for row in summary.rows:
        for record in row.records:
            for (engine, precision, device, batch), reason in record.unmeasured.items():
                setting = f"{setting_title(engine, precision)}, {device}, batch {batch}"
                sentences[f"{row.model}, {setting}: not measured ({_one_line(reason)})."] = None
    return list(sentences)


def _one_line(text: str | None) -> str:
    return " ".join(str(text or "").split())
