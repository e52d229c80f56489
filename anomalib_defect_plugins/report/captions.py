"""Sentences that the Markdown report, the HTML report and the demo share."""

from anomalib_defect_plugins.report.labels import COSTS, SHARED, and_list, metric_title
from anomalib_defect_plugins.report.plots import PLOTTED_COSTS, Panel, pareto_panels
from anomalib_defect_plugins.report.summary import Summary
from anomalib_defect_plugins.results.record import setting_title

METRICS = (
    "Mean ± sample standard deviation over the seeds; without ± for a single seed. Bold: better than every other row "
    "with the same data and supervision, i.e. Welch's 95 % confidence interval of the difference of the means lies "
    "above 0 for each of them. The spread is that of the seeds, not that of another selection of test images. If a row "
    "has a single seed, no row it is compared with is bold."
)

DATA_SETS = (
    "Mean ± sample standard deviation over the seeds, and in brackets their number. Bold as in the tables below."
)

LATENCY = (
    "Mean over all runs of a model, ± sample standard deviation; p95 and p99 are percentiles of the calls of a run."
)

COST = "Mean ± sample standard deviation over the seeds. Parameters and FLOPs are those of the network."

EXAMPLES = (
    "From the first seed. Defective images by the margin of their score over the threshold: the best, the median and "
    "the worst; and the normal image with the highest score. Maps are scaled over the whole test set, from the lowest "
    "value (dark) to the highest (bright)."
)

FAILED = "These runs have no metrics. Further details, if any, are in traceback.txt in the folder of the run."

REPEAT = (
    "Commands that repeat each row, a line for each seed. With --force, an existing run is repeated and replaced; with "
    "--out and a new folder, it is kept."
)


def latency_note(summary: Summary) -> str:
    """Describe the tables of latencies."""
    if not summary.has_shared_latency:
        return LATENCY
    return f"{LATENCY} {SHARED}: other runs may have used the machine, so the time is too long by an unknown factor."


def summary_note(summary: Summary) -> str:
    """Describe the summary."""
    note = "Metrics: mean over the data sets, ± sample standard deviation of that mean over the seeds"
    if summary.latency_setting is not None:
        note += f"; latency: {_describe_latency(summary)}"
    return f"{note}. Bold as in the tables below, among rows with the same supervision and the same data sets."


def _describe_latency(summary: Summary) -> str:
    """Describe the setting that represents the latency of all models, if there is one."""
    if summary.latency_setting is None:
        return ""
    engine, precision, device, batch = summary.latency_setting
    shared = f" ({SHARED}: other runs may have used the machine)" if _any_shared(summary) else ""
    return f"median with {setting_title(engine, precision)}, {device}, batch {batch}{shared}"


def _any_shared(summary: Summary) -> bool:
    """Whether other runs may have used the machine while any of these latencies was measured."""
    return any(summary.is_shared(model) for model in summary.models)


def overview(summary: Summary) -> str:
    """Describe in a sentence what was run."""
    results = summary.results
    seeds = {record.run.seed for record in results.done}
    counts = [
        _count(len(summary.models), "model"),
        _count(len(summary.data), "data set"),
        _count(len(summary.supervisions), "kind of supervision", "kinds of supervision"),
        _count(len(seeds), "seed"),
    ]
    runs = f"{_count(len(results.done), 'run')} done"
    runs += f", {len(results.failed)} failed" if results.failed else ""
    runs += f", {len(results.left_out)} unreadable" if results.left_out else ""
    return f"{and_list(counts)}: {runs}."


def _count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"


def pareto_fronts(summary: Summary) -> list[str]:
    """List the models on each Pareto front."""
    return [f"{_panel_title(panel, summary)}: {and_list(panel.front)}." for panel in pareto_panels(summary)]


def _panel_title(panel: Panel, summary: Summary) -> str:
    title = metric_title(panel.metric)
    title += f", {panel.data_title}" if len(summary.data) > 1 else ""
    return title + (f", {panel.supervision}" if len(summary.supervisions) > 1 else "")


def alt_text(name: str, summary: Summary) -> str:
    """Describe a plot for readers who cannot see it."""
    if name == "pareto":
        fronts = " ".join(pareto_fronts(summary))
        return f"Accuracy against latency ({_describe_latency(summary)}). Pareto fronts: {fronts}"
    if name == "cost":
        costs = and_list(COSTS[cost] for cost in PLOTTED_COSTS)
        return f"Cost of each model: {costs}; the table has the numbers"
    return "Heat map of the metrics of each model on each data set; the tables have the numbers"
