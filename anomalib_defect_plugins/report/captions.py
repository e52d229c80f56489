"""Sentences that the Markdown and the HTML report share."""

from anomalib_defect_plugins.report.labels import COSTS, SHARED, and_list, figure_title
from anomalib_defect_plugins.report.plots import PLOTTED_COSTS, Panel, pareto_panels
from anomalib_defect_plugins.report.summary import Summary
from anomalib_defect_plugins.results.record import setting_title

FIGURES = (
    "Mean ± sample standard deviation over the seeds; without ± there was one seed. Bold: better than every other row "
    "of the same data and supervision, that is, Welch's 95 % confidence interval of the difference of the means lies "
    "above 0 for each of them. The spread is that of the seeds, not that of another choice of test images. Beside a "
    "row with one seed nothing is bold."
)

LATENCY = (
    "Mean over all runs of a model, ± sample standard deviation; p95 and p99 are percentiles of the calls of a run."
)

COST = "Mean ± sample standard deviation over the seeds. Parameters and FLOPs are those of the network."

EXAMPLES = (
    "Of the first seed. Defective images by the margin of their score over the threshold: the best, the median, the "
    "worst; and the normal image that comes nearest to an alarm or gives the worst one. The map is scaled over the "
    "whole test set: dark is its least value, bright its greatest."
)


FAILED = "These runs have no figures. Where more is known, it is in traceback.txt in the run's folder."

REPEAT = (
    "What repeats each row, a line for each seed. With --force a run that is there is made again and replaced; with "
    "--out and a new folder it stays as it is."
)


def latency_note(summary: Summary) -> str:
    """Say what stands in the tables of times."""
    if not any(it.shared for of_model in summary.times.values() for times in of_model.values() for it in times):
        return LATENCY
    return f"{LATENCY} {SHARED}: measured while the machine may have had other runs, so too slow by an unknown factor."


def summary_note(summary: Summary) -> str:
    """Say what stands in the summary."""
    said = "Figures: mean over the data sets, ± sample standard deviation of that mean over the seeds"
    if summary.setting is not None:
        said += f"; latency: {_setting(summary)}"
    return f"{said}. Bold as in the tables below, among rows of the same supervision and the same data sets."


def _setting(summary: Summary) -> str:
    engine, precision, device, batch = summary.setting
    shared = f" ({SHARED}: while the machine may have had other runs)" if _any_shared(summary) else ""
    return f"median with {setting_title(engine, precision)}, {device}, batch {batch}{shared}"


def _any_shared(summary: Summary) -> bool:
    return any(summary.is_shared(model) for model in summary.models)


def overview(summary: Summary) -> str:
    """Say in a sentence what was run."""
    results = summary.results
    seeds = {record.seed for record in results.done}
    counts = [
        _count(len(summary.models), "model"),
        _count(len(summary.data), "data set"),
        _count(len(summary.supervisions), "kind of supervision", "kinds of supervision"),
        _count(len(seeds), "seed"),
    ]
    ended = f"{_count(len(results.done), 'run')} done"
    ended += f", {len(results.failed)} failed" if results.failed else ""
    ended += f", {len(results.left_out)} unreadable" if results.left_out else ""
    return f"{and_list(counts)}: {ended}."


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def pareto_fronts(summary: Summary) -> list[str]:
    """Say who is on each Pareto front."""
    panels = pareto_panels(summary)
    return [f"{_where(panel, summary)}: {and_list(panel.front)}." for panel in panels]


def _where(panel: Panel, summary: Summary) -> str:
    said = figure_title(panel.figure)
    said += f", {panel.data_title}" if len(summary.data) > 1 else ""
    return said + (f", {panel.supervision}" if len(summary.supervisions) > 1 else "")


def alt(name: str, summary: Summary) -> str:
    """Say what a plot shows."""
    if name == "pareto":
        return f"Accuracy against latency ({_setting(summary)}). Pareto fronts: {' '.join(pareto_fronts(summary))}"
    if name == "cost":
        return f"Cost of each model: {and_list(COSTS[name] for name in PLOTTED_COSTS)}; the table has the numbers"
    return "Heat map of the figures of each model on each data set; the tables have the numbers"
