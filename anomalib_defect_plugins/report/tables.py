"""The tables of a report, as cells that Markdown and HTML write each in its way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from anomalib_defect_plugins.report.labels import (
    COSTS,
    LEVELS,
    MISSING,
    SHARED,
    cost_title,
    figure_title,
    in_units,
    level_of,
    primary_figures,
    three_digits,
    three_significant,
    with_spread,
)
from anomalib_defect_plugins.report.statistics import Measured, measure
from anomalib_defect_plugins.report.summary import Row, Summary, flatten
from anomalib_defect_plugins.results.record import TIMES, Latency, Setting, setting_title, was_shared

LABELS = ("model", "data", "supervision")


@dataclass(frozen=True)
class Cell:
    """A cell.

    Args:
        text: What stands in it.
        value: What it is sorted by: a number, or the text.
        bold: Whether it is the best.
        model: The model that it names, whose mark stands before it.
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
        title: What it shows.
        columns: Titles of the columns.
        rows: Its rows.
        breaks: Rows before which a new group of rows begins.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]] = field(default_factory=list)
    breaks: frozenset[int] = frozenset()


def word(text: object, model: str | None = None) -> Cell:
    """Make a cell of text."""
    return Cell(str(text), str(text).casefold(), model=model)


def number(measured: Measured | None, write: Callable[[float], str] = three_significant, bold: bool = False) -> Cell:
    """Make a cell of mean and spread."""
    return Cell(with_spread(measured, write), None if measured is None else measured.mean, bold, numeric=True)


def duration(measured: Measured | None, shared: bool) -> Cell:
    """Make a cell of times, marked if the machine may have had other runs meanwhile."""
    cell = number(measured)
    return replace(cell, text=f"{cell.text} {SHARED}") if shared and measured else cell


def count(value: int | None) -> Cell:
    """Make a cell of a whole number."""
    return Cell(MISSING if value is None else str(value), value, numeric=True)


def figure_tables(summary: Summary) -> list[Table]:
    """Make a table of the figures of each level."""
    names = {level: [name for name in summary.figures if level_of(name) == level] for level in (*LEVELS, "")}
    titles = {"image": "Image level", "pixel": "Pixel level", "": "Other figures"}
    return [_figure_table(summary, titles[level], found) for level, found in names.items() if found]


def _figure_table(summary: Summary, title: str, names: Sequence[str]) -> Table:
    rows = [row for row in summary.rows if any(row.figure(name) for name in names)]
    cells = [[*_label(row), *(_figure_cell(summary, row, name) for name in names), _seeds(row)] for row in rows]
    return Table(title, [*LABELS, *map(figure_title, names), "seeds"], cells, _breaks([row.contest for row in rows]))


def _label(row: Row) -> list[Cell]:
    return [word(row.model, row.model), word(row.data), word(row.supervision)]


def _seeds(row: Row) -> Cell:
    return count(len(row.records))


def _figure_cell(summary: Summary, row: Row, name: str) -> Cell:
    return number(row.figure(name), three_digits, (row.model, *row.contest, name) in summary.best)


def _breaks(groups: Sequence[object]) -> frozenset[int]:
    return frozenset(at for at in range(1, len(groups)) if groups[at] != groups[at - 1])


def summary_table(summary: Summary) -> Table | None:
    """Make the table of means over the data: a row for each model and supervision."""
    names = primary_figures(summary.figures)
    if not names:
        return None
    rows = [_summary_row(summary, *line, names) for line in summary.lines]
    costs = [cost_title("train_seconds"), cost_title("parameters")]
    columns = ["model", "supervision", *map(figure_title, names), "latency, ms", *costs, "data sets"]
    return Table("Summary", columns, rows, _breaks([supervision for _, supervision in summary.lines]))


def _summary_row(summary: Summary, model: str, supervision: str, names: Sequence[str]) -> list[Cell]:
    rows = summary.rows_of(model, supervision)
    figures = {name: summary.over_data(model, supervision, name) for name in names}
    data = {name: tuple(summary.by_data(model, supervision, name)) for name in names}
    best = {name: (model, data[name], supervision, name) in summary.best_over_data for name in names}
    costs = [summary.cost(model, supervision, name) for name in ("train_seconds", "parameters")]
    latency = summary.latency(model)
    return [
        word(model, model),
        word(supervision),
        *(number(figures[name], three_digits, best[name]) for name in names),
        duration(latency and latency._replace(spread=None), summary.is_shared(model)),
        *(number(value and value._replace(spread=None)) for value in costs),
        count(len(rows)),
    ]


def cost_table(summary: Summary) -> Table | None:
    """Make the table of what training took."""
    names = [name for name in COSTS if any(row.cost(name) for row in summary.rows)]
    if not names:
        return None
    rows = [
        [*_label(row), *(number(in_units(name, row.cost(name))) for name in names), _seeds(row)] for row in summary.rows
    ]
    breaks = _breaks([row.contest for row in summary.rows])
    return Table("Cost of training and test", [*LABELS, *map(cost_title, names), "seeds"], rows, breaks)


def latency_overview(summary: Summary) -> Table | None:
    """Make the table of medians: a row for each model, a column for each setting."""
    found = summary.times
    settings = sorted({setting for of_model in found.values() for setting in of_model}, key=_setting_order)
    if not settings:
        return None
    several = len({device for _, _, device, _ in settings}) > 1
    titles = [
        f"{setting_title(engine, precision)}{f' {device}' if several else ''}, batch\u00a0{batch}"
        for engine, precision, device, batch in settings
    ]
    rows = [
        [word(model, model), *(duration(_median(of_model, it), summary.is_shared(model, it)) for it in settings)]
        for model, of_model in found.items()
    ]
    return Table("Median latency of a call, ms", ["model", *titles], rows)


def _median(of_model: dict[Setting, list[Latency]], setting: Setting) -> Measured | None:
    return measure([latency.median_ms for latency in of_model.get(setting, [])])


def _setting_order(setting: Setting) -> tuple[int, bool, str, str, str]:
    engine, precision, device, batch = setting
    # FP32, FP16, INT8: fewer bits come later.
    return batch, engine != "torch", engine, device, {"FP32": "0", "FP16": "1", "INT8": "2"}.get(precision, precision)


def latency_table(summary: Summary) -> Table | None:
    """Make the table of all times: a row for each model and setting."""
    rows = []
    for model, of_model in summary.times.items():
        differences = _differences(summary, model)
        for setting in sorted(of_model, key=_setting_order):
            engine, precision, device, batch = setting
            values = [measure([getattr(latency, name) for latency in of_model[setting]]) for name in TIMES]
            shared = summary.is_shared(model, setting)
            difference = differences.get(precision) if engine != "torch" else None
            rows.append(
                [
                    word(model, model),
                    word(setting_title(engine, precision)),
                    word(device),
                    count(batch),
                    duration(values[0], shared),
                    *(duration(value and value._replace(spread=None), shared) for value in values[1:]),
                    Cell(MISSING if difference is None else f"{difference:.1e}", difference, numeric=True),
                    count(len(of_model[setting])),
                ]
            )
    columns = ["model", "engine", "device", "batch", "median, ms", "p95, ms", "p99, ms", "images a second"]
    columns += ["export difference", "runs"]
    return Table("All times", columns, rows) if rows else None


def _differences(summary: Summary, model: str) -> dict[str, float]:
    """Give the greatest export difference of a model's runs, by precision."""
    greatest: dict[str, float] = {}
    for record in (record for row in summary.rows if row.model == model for record in row.records):
        for precision, difference in record.export_difference.items():
            greatest[precision] = max(difference, greatest.get(precision, 0.0))
    return greatest


def failed_table(summary: Summary) -> Table | None:
    """Make the table of the runs that failed."""
    columns = ["model", "data", "supervision", "seed", "error", "run"]
    rows = [
        [*map(word, summary.labels[record.key]), count(record.seed), word(_one_line(record.error)), word(record.key)]
        for record in summary.results.failed
    ]
    return Table("Failed runs", columns, rows) if rows else None


def environment_table(summary: Summary) -> Table | None:
    """Make the table of versions and hardware: a column for each environment that runs were made in."""
    records = summary.results.done + summary.results.failed
    # The date is another for each run.
    found = [
        {name: value for name, value in flatten(record.environment).items() if name != "date"} for record in records
    ]
    distinct = [item for at, item in enumerate(found) if item and item not in found[:at]]
    if not distinct:
        return None
    titles = [f"{found.count(item)} of {len(found)} runs" for item in distinct]
    names = dict.fromkeys(name for item in distinct for name in item)
    rows = [[word(name), *(word(_plain(item.get(name))) for item in distinct)] for name in names]
    return Table("Environment", ["", *titles], rows)


def _plain(value: str | None) -> str:
    return MISSING if value in {None, "null"} else value.strip('"')


def settings_of(summary: Summary, model: str) -> list[tuple[str, str]]:
    """Give the class of a model and what it was made and trained with, by name."""
    record = next(row.records[0] for row in summary.rows if row.model == model)
    trainer = flatten({"trainer": record.settings["trainer"]} if record.settings["trainer"] else {})
    settings = {**flatten(record.model.init_args), **trainer}
    return [("class", record.model.class_path), *((name, _plain(value)) for name, value in settings.items())]


def commands(summary: Summary) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Give the command that repeats each run, failed ones too: by model, then row, each with its seed."""
    found: dict[str, dict[str, list[tuple[str, str]]]] = {model: {} for model in summary.models}
    done = [record for row in summary.rows for record in row.records]
    for record in (*done, *summary.results.failed):
        model, *others = summary.labels[record.key]
        runs = found.setdefault(model, {}).setdefault(" · ".join(others), [])
        command = _one_line(record.command) or MISSING
        runs.append((f"seed {record.seed}{' (failed)' if record.error else ''}", command))
    return found


def remarks(summary: Summary) -> list[str]:
    """Give what the reader has to know of how the figures came about, a sentence each."""
    results = summary.results
    said = [
        f"The runs of {data} under {supervision} were not made with the same images, so none is called the best."
        for data, supervision in sorted(summary.unequal)
    ]
    machines = {(record.environment.get("cpu"), record.environment.get("gpu")) for record in results.done}
    if len(machines) > 1:
        said.append(f"The runs were made on {len(machines)} kinds of machine, so their times cannot be compared.")
    if any(was_shared(record.environment) for record in results.done):
        said.append(
            f"Several runs may have been made at a time on one machine, so their times say little; {SHARED} marks "
            "latency. Measure it with --runner serial --force."
        )
    if results.other:
        said.append(
            f"{results.other} finished {'run is' if results.other == 1 else 'runs are'} not in results.csv and left "
            "out: of a former configuration, or finished just before an interruption (start the benchmark again)."
        )
    return said


def unmeasured(summary: Summary) -> list[str]:
    """Say for each model and setting without a time why there is none."""
    found: dict[str, None] = {}
    for row in summary.rows:
        for record in row.records:
            for (engine, precision, device, batch), reason in record.unmeasured.items():
                setting = f"{setting_title(engine, precision)}, {device}, batch {batch}"
                found[f"{row.model}, {setting}: not measured ({_one_line(reason)})."] = None
    return list(found)


def _one_line(text: str | None) -> str:
    return " ".join(str(text or "").split())
