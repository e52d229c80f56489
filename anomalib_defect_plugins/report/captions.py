"""Sentences that the Markdown report, the HTML report and the demo share."""

from collections.abc import Iterable

from anomalib_defect_plugins.report.labels import COSTS, SAW_LABELS, SHARED, and_list, metric_title
from anomalib_defect_plugins.report.plots import PLOTTED_COSTS, Panel, pareto_panels
from anomalib_defect_plugins.report.summary import Summary
from anomalib_defect_plugins.report.tested_images import count_images
from anomalib_defect_plugins.results.record import setting_title

METRICS = (
    "Mean ± sample standard deviation over the seeds; without ± for a single seed. Bold: better than every other row "
    "with the same data and supervision, i.e. Welch's 95 % confidence interval of the difference of the means lies "
    "above 0 for each of them. The spread is that of the seeds, not that of another selection of test images. If a row "
    "has a single seed, no row it is compared with is bold."
)

OPERATING_POINTS = (
    "Errors of the first seed at the threshold of the model; in brackets 95 % intervals (Clopper and Pearson). Where "
    "the threshold was chosen on the labels of the test images (‡), the intervals hold at all thresholds at once, and "
    "are wider."
)

COST_CURVE = (
    "Expected cost of a part at the threshold of each model, where 1 is the cost if every decision is wrong (Drummond "
    "and Holte, Machine Learning 2006). The ratio is that of defect rate × cost of a miss to rate of good parts × cost "
    "of a false alarm: false alarms matter more on the left, misses on the right. Above the dotted line, accepting or "
    "rejecting all parts is cheaper than the model."
)

PARETO = (
    "Models on the Pareto front (dashed line, larger marks): no other model is more accurate and not slower, or as "
    "accurate and faster. One is faster than another if 95 % of its calls in each run are faster than the other's "
    "median in any run, and no other run may have used the machine. The accuracy is that of PyTorch."
)

DATA_SETS = (
    "Mean ± sample standard deviation over the seeds, and in brackets their number. Bold as in the tables below."
)

LATENCY = (
    "Mean over all runs of a model, ± sample standard deviation; p95 and p99 are percentiles of the calls of a run. "
    "Bold: faster than every other model, i.e. 95 % of its calls in each run are faster than the other's median in any "
    "run. Exports are compared with PyTorch on up to 100 test images of each run: the largest difference of scores "
    "and maps, and of scores alone; the images with another verdict; and the largest change of the image AUROC. 8-bit "
    "graphs are calibrated on some of these images, without their labels."
)

COST = "Mean ± sample standard deviation over the seeds. Parameters and FLOPs are those of the network."

EXAMPLES = (
    "From the first seed. Defective images by the margin of their score over the threshold: the best, the median and "
    "the worst; and the normal image with the highest score. The colours of the maps have the threshold of pixels in "
    "their middle, and reach from the lowest value of the whole test set to the highest; without a threshold, they are "
    "proportional to the map."
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
    note += ". Bold as in the tables below, among rows with the same supervision and the same data sets."
    return with_images(note, summary)


def with_images(note: str, summary: Summary) -> str:
    """Extend a note on metrics by the images behind them, and by the mark of thresholds that saw their labels."""
    return " ".join(filter(None, [note, tested_images(summary), seen_labels(summary, summary.metrics)]))


def seen_labels(summary: Summary, metrics: Iterable[str]) -> str:
    """Explain the mark of thresholds that saw the labels of the test images, if any of the metrics has it."""
    if not any(row.saw_labels(name) for name in metrics for row in summary.rows):
        return ""
    return f"{SAW_LABELS}: at a threshold that was chosen on the labels of the test images, too high."


def tested_images(summary: Summary) -> str:
    """Return the numbers of test images by data set."""
    counts: dict[str, dict[str, None]] = {}
    for row in summary.rows:
        if (count := count_images(row.records[0])) is not None:
            good, defective = count
            counts.setdefault(row.data, {})[f"{good} good and {defective} defective"] = None
    listed = "; ".join(f"{data} {' or '.join(numbers)}" for data, numbers in counts.items())
    return f"Test images: {listed}." if listed else ""


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
    if name == "cost_curve":
        return "Expected cost at the threshold of each model by the ratio of the costs of misses and false alarms"
    if name == "cost":
        costs = and_list(COSTS[cost] for cost in PLOTTED_COSTS)
        return f"Cost of each model: {costs}; the table has the numbers"
    return "Heat map of the metrics of each model on each data set; the tables have the numbers"
