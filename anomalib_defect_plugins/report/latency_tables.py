"""Tables of latency, with what an export changes beside its speed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from anomalib_defect_plugins.report.labels import MISSING
from anomalib_defect_plugins.report.statistics import MeanSpread, mean_spread
from anomalib_defect_plugins.report.summary import Summary
from anomalib_defect_plugins.report.tables import Cell, Table, count_cell, text_cell, time_cell
from anomalib_defect_plugins.results.record import TIMES, LatencyRow, LatencySetting, RunRecord, setting_title

PRECISION_ORDER = {"FP32": "0", "FP16": "1", "INT8": "2"}
"""Sort keys of precisions: fewer bits come later."""

NOT_FINITE = "not finite"
"""Text of a difference if a graph fails on the test images, or an output is not finite."""


@dataclass(frozen=True)
class ExportEffect:
    """What an export changes, over the runs of a model; ``None`` where nothing is recorded.

    Args:
        difference: Maximum difference of scores and maps; not finite if that of a run is not.
        score_difference: Maximum difference of scores.
        changed: Number of images with another verdict.
        images: Number of images compared.
        auroc_change: Image AUROC of the graph less that of PyTorch, of the run with the largest change.
    """

    difference: float | None
    score_difference: float | None
    changed: int | None
    images: int
    auroc_change: float | None

    @property
    def verdicts(self) -> str:
        """Images with another verdict, of those compared."""
        return MISSING if self.changed is None else f"{self.changed}/{self.images}"


def latency_overview(summary: Summary) -> Table | None:
    """Build the table of median latencies: a row for each model, a column for each setting."""
    latencies = summary.latencies
    settings = sorted({setting for by_setting in latencies.values() for setting in by_setting}, key=_setting_order)
    if not settings:
        return None
    several = len({device for _, _, device, _ in settings}) > 1
    titles = [
        f"{setting_title(engine, precision)}{f' {device}' if several else ''}, batch\u00a0{batch}"
        for engine, precision, device, batch in settings
    ]
    fastest = {setting: summary.fastest(setting) for setting in settings}
    rows = [
        [text_cell(model, model), *(_overview_cell(summary, model, setting, fastest[setting]) for setting in settings)]
        for model in latencies
    ]
    title = "Median latency of a call, ms (in brackets: images whose verdict differs from that of PyTorch)"
    return Table(title, ["model", *titles], rows)


def _overview_cell(summary: Summary, model: str, setting: LatencySetting, fastest: str | None) -> Cell:
    times = _median(summary.latencies[model], setting)
    cell = time_cell(times, summary.is_shared(model, setting), model == fastest)
    effect = export_effect(_records(summary, model), setting)
    if times is None or effect is None or effect.changed is None:
        return cell
    return replace(cell, text=f"{cell.text} ({effect.verdicts})")


def _median(by_setting: Mapping[LatencySetting, Sequence[LatencyRow]], setting: LatencySetting) -> MeanSpread | None:
    return mean_spread(row.median_ms for row in by_setting.get(setting, []))


def _setting_order(setting: LatencySetting) -> tuple[int, bool, str, str, str]:
    engine, precision, device, batch = setting
    return batch, engine != "torch", engine, device, PRECISION_ORDER.get(precision, precision)


def latency_table(summary: Summary) -> Table | None:
    """Build the table of all latency measurements: a row for each model and setting."""
    rows = []
    for model, by_setting in summary.latencies.items():
        for setting in sorted(by_setting, key=_setting_order):
            effect = export_effect(_records(summary, model), setting)
            bold = summary.fastest(setting) == model
            shared = summary.is_shared(model, setting)
            rows.append([*_time_cells(model, setting, by_setting[setting], shared, bold), *_effect_cells(effect),
                         count_cell(len(by_setting[setting]))])  # fmt: skip
    columns = ["model", "engine", "device", "batch", "median, ms", "p95, ms", "p99, ms", "images per second"]
    columns += ["difference of scores and maps", "of scores", "verdicts changed", "image AUROC change", "runs"]
    return Table("All latencies, and what the export changes", columns, rows) if rows else None


def _time_cells(
    model: str, setting: LatencySetting, latencies: Sequence[LatencyRow], shared: bool, bold: bool
) -> list[Cell]:
    engine, precision, device, batch = setting
    median, *others = (mean_spread(getattr(latency, name) for latency in latencies) for name in TIMES)
    return [
        text_cell(model, model),
        text_cell(setting_title(engine, precision)),
        text_cell(device),
        count_cell(batch),
        time_cell(median, shared, bold),
        *(time_cell(value and value._replace(spread=None), shared) for value in others),
    ]


def _effect_cells(effect: ExportEffect | None) -> list[Cell]:
    if effect is None:
        return [Cell(MISSING, numeric=True)] * 4
    share = effect.changed / effect.images if effect.changed is not None and effect.images else None
    change = effect.auroc_change
    return [
        _difference_cell(effect.difference),
        _difference_cell(effect.score_difference),
        Cell(effect.verdicts, share, numeric=True),
        Cell(MISSING if change is None else f"{round(change, 4) + 0.0:+.4f}", change, numeric=True),
    ]


def _difference_cell(difference: float | None) -> Cell:
    if difference is None:
        return Cell(MISSING, numeric=True)
    is_known = math.isfinite(difference)
    return Cell(f"{difference:.1e}" if is_known else NOT_FINITE, difference if is_known else None, numeric=True)


def _records(summary: Summary, model: str) -> list[RunRecord]:
    return [record for row in summary.rows if row.model == model for record in row.records]


def export_effect(records: Sequence[RunRecord], setting: LatencySetting) -> ExportEffect | None:
    """Summarize what an export in the precision of a setting changes; ``None`` for PyTorch."""
    engine, precision, _, _ = setting
    if engine == "torch":
        return None
    changes = [record.export_changes.get(precision, {}) for record in records]
    differences = [
        math.inf if (difference := record.export_difference[precision]) is None else difference
        for record in records
        if precision in record.export_difference
    ]
    compared = [change for change in changes if change.get("changed_verdicts") is not None]
    scores = [value for change in changes if (value := change.get("score_difference")) is not None]
    aurocs = [
        new - old
        for change in changes
        if (new := change.get("image_AUROC")) is not None and (old := change.get("torch_image_AUROC")) is not None
    ]
    return ExportEffect(
        difference=max(differences, default=None),
        score_difference=max(scores, default=None),
        changed=int(sum(change["changed_verdicts"] or 0 for change in compared)) if compared else None,
        images=int(sum(change.get("images") or 0 for change in compared)),
        auroc_change=max(aurocs, key=abs, default=None),
    )
