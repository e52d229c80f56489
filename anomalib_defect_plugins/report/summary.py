"""Groups runs that differ only in the seed into rows, and determines which rows are comparable."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from anomalib_defect_plugins.report.labels import AT_THRESHOLD, BEST_THRESHOLD, in_units, is_higher_better
from anomalib_defect_plugins.report.statistics import CallTimes, MeanSpread, clearly_best, clearly_fastest, mean_spread
from anomalib_defect_plugins.report.tested_images import SAW_TEST_LABELS, threshold_origin
from anomalib_defect_plugins.results.reader import BenchmarkResults
from anomalib_defect_plugins.results.record import LatencyRow, LatencySetting, RunRecord
from anomalib_defect_plugins.results.run_spec import PRECISIONS, ComponentSpec

Data = TypeVar("Data")
Comparisons = dict[tuple[Data, str, str], dict[str, MeanSpread | None]]
"""Values of comparable models, by data, supervision and metric."""


@dataclass(frozen=True)
class SummaryRow:
    """Runs of one model on one data set under one supervision.

    Args:
        model: Label of the model, unique among models with other settings.
        data: Label of the data set, likewise.
        supervision: Label of the supervision, likewise.
        records: Finished runs, by seed.
    """

    model: str
    data: str
    supervision: str
    records: tuple[RunRecord, ...]

    @property
    def group(self) -> tuple[str, str]:
        """Data and supervision. Rows of the same group were tested on the same images, so they are comparable."""
        return self.data, self.supervision

    def metric(self, name: str) -> MeanSpread | None:
        """Compute mean and spread of a metric."""
        return mean_spread(record.metrics.get(name) for record in self.records)

    def saw_labels(self, name: str) -> bool:
        """Whether a metric depends on a threshold that was chosen on the labels of the test images."""
        kind = name.rpartition("_")[2]
        if kind in BEST_THRESHOLD:
            return True
        return kind in AT_THRESHOLD and any(threshold_origin(record) == SAW_TEST_LABELS for record in self.records)

    def cost(self, name: str) -> MeanSpread | None:
        """Compute mean and spread of a cost."""
        return mean_spread(record.cost.get(name) for record in self.records)


@dataclass(frozen=True)
class Summary:
    """A results folder in rows.

    Args:
        results: Content of the folder.
        rows: Rows by data and supervision, and within these in the order of the configuration.
        labels: Labels of model, data and supervision by the key of the run.
    """

    results: BenchmarkResults
    rows: tuple[SummaryRow, ...]
    labels: Mapping[str, tuple[str, str, str]]

    @cached_property
    def models(self) -> list[str]:
        """Labels of the models with a row."""
        order = list(dict.fromkeys(label for label, _, _ in self.labels.values()))
        return sorted({row.model for row in self.rows}, key=order.index)

    @cached_property
    def data(self) -> list[str]:
        """Labels of the data sets."""
        return list(dict.fromkeys(row.data for row in self.rows))

    @cached_property
    def supervisions(self) -> list[str]:
        """Labels of the kinds of supervision."""
        return list(dict.fromkeys(row.supervision for row in self.rows))

    @cached_property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return list(dict.fromkeys(name for row in self.rows for record in row.records for name in record.metrics))

    @cached_property
    def best(self) -> set[tuple[str, str, str, str]]:
        """Rows that are clearly the best of their group: model, data, supervision and metric.

        A threshold that saw the labels of the test images is no merit among rows whose thresholds did not.
        """
        comparisons: Comparisons[str] = {}
        for row in self.rows:
            if row.group not in self.incomparable:
                for name in self.metrics:
                    comparisons.setdefault((*row.group, name), {})[row.model] = row.metric(name)
        saw = {(row.model, *row.group, name) for row in self.rows for name in self.metrics if row.saw_labels(name)}
        return _winners(comparisons, saw)

    @cached_property
    def incomparable(self) -> set[tuple[str, str]]:
        """Groups whose rows are not comparable: runs with the same seed used other images or sizes of masks."""
        splits: dict[tuple[str, str, int], set[str]] = {}
        for row in self.rows:
            for record in row.records:
                used = f"{record.split.get('hash')} {record.resolution}"
                splits.setdefault((*row.group, record.run.seed), set()).add(used)
        return {(data, supervision) for (data, supervision, _), hashes in splits.items() if len(hashes) > 1}

    @cached_property
    def latencies(self) -> dict[str, dict[LatencySetting, list[LatencyRow]]]:
        """Measured latency of all runs, by model and setting."""
        latencies: dict[str, dict[LatencySetting, list[LatencyRow]]] = {model: {} for model in self.models}
        for row in self.rows:
            for latency in (latency for record in row.records for latency in record.measured_latency):
                latencies[row.model].setdefault(latency.setting, []).append(latency)
        return {model: by_setting for model, by_setting in latencies.items() if by_setting}

    @cached_property
    def latency_setting(self) -> LatencySetting | None:
        """Setting that represents the latency of a model: the most frequent, preferably exported, batch 1, FP32."""
        settings = [setting for by_setting in self.latencies.values() for setting in by_setting]

        def rank(setting: LatencySetting) -> tuple[int, int, bool, int, LatencySetting]:
            engine, precision, _, batch = setting
            place = PRECISIONS.index(precision) if precision in PRECISIONS else len(PRECISIONS)
            return -settings.count(setting), batch, engine != "openvino", place, setting

        return min(settings, key=rank, default=None)

    def latency(self, model: str) -> MeanSpread | None:
        """Compute mean and spread of a model's median latency in ms over its runs, at :attr:`latency_setting`."""
        if self.latency_setting is None:
            return None
        return mean_spread(row.median_ms for row in self.latencies.get(model, {}).get(self.latency_setting, []))

    def call_times(self, setting: LatencySetting) -> dict[str, CallTimes]:
        """Return the times of the calls of each model.

        Their spread is infinite if other runs may have used the machine.
        """
        times = {}
        for model, by_setting in self.latencies.items():
            known = [(row.median_ms, row.p95_ms) for row in by_setting.get(setting, ())]
            medians, p95s = ([time[part] or math.inf for time in known] for part in (0, 1))
            if known:
                low, high = (0.0, math.inf) if self.is_shared(model, setting) else (min(medians), max(p95s))
                times[model] = CallTimes(_mean(medians), low, high)
        return times

    def fastest(self, setting: LatencySetting | None = None) -> str | None:
        """Return the model that is faster than every other one; ``None`` if the spread of the calls is too large.

        Args:
            setting: Setting of the measurement; :attr:`latency_setting` by default.
        """
        setting = setting or self.latency_setting
        return None if setting is None else clearly_fastest(self.call_times(setting))

    def is_shared(self, model: str, setting: LatencySetting | None = None) -> bool:
        """Whether other runs may have used the machine while the latency of a model was measured.

        Args:
            model: Label of the model.
            setting: Setting of the measurement; :attr:`latency_setting` by default.
        """
        setting = setting or self.latency_setting
        records = (record for row in self.rows if row.model == model for record in row.records if record.shared)
        return any(latency.setting == setting for record in records for latency in record.measured_latency)

    @cached_property
    def has_shared_latency(self) -> bool:
        """Whether other runs may have used the machine during any latency measurement."""
        return any(record.shared and record.measured_latency for row in self.rows for record in row.records)

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Pairs of model and supervision, by supervision."""
        pairs = dict.fromkeys((row.model, row.supervision) for row in self.rows)
        return sorted(pairs, key=lambda pair: (self.supervisions.index(pair[1]), self.models.index(pair[0])))

    def rows_of(self, model: str, supervision: str) -> list[SummaryRow]:
        """Return the rows of a model under a supervision, one per data set."""
        return [row for row in self.rows if (row.model, row.supervision) == (model, supervision)]

    def cost(self, model: str, supervision: str, name: str) -> MeanSpread | None:
        """Compute mean and spread of a cost over data sets and seeds, in the unit that it is shown in."""
        records = [record for row in self.rows_of(model, supervision) for record in row.records]
        return in_units(name, mean_spread(record.cost.get(name) for record in records))

    def by_data(self, model: str, supervision: str, name: str) -> dict[str, float]:
        """Compute the mean of a metric over the seeds, by data set."""
        rows = self.rows_of(model, supervision)
        return {row.data: value.mean for row in rows if (value := row.metric(name)) is not None}

    def over_data(self, model: str, supervision: str, name: str) -> MeanSpread | None:
        """Average a metric over the data sets, and compute mean and spread of this average over the seeds.

        Only seeds that all data sets have are used. Without any, it is the mean of the means, without a spread.
        """
        rows = self.rows_of(model, supervision)
        by_seed = [
            {record.run.seed: record.metrics[name] for record in row.records if name in record.metrics} for row in rows
        ]
        by_seed = [values for values in by_seed if values]
        if not by_seed:
            return None
        seeds = sorted(set.intersection(*map(set, by_seed)))
        value = mean_spread([_mean(values[seed] for values in by_seed) for seed in seeds])
        return value or MeanSpread(_mean(self.by_data(model, supervision, name).values()), None, 0)

    @cached_property
    def best_over_data(self) -> set[tuple[str, tuple[str, ...], str, str]]:
        """Like :attr:`best`, for means over the data sets, among models with the same data sets."""
        comparisons: Comparisons[tuple[str, ...]] = {}
        for model, supervision in self.pairs:
            for name in self.metrics:
                data = tuple(self.by_data(model, supervision, name))
                if not any((item, supervision) in self.incomparable for item in data):
                    values = comparisons.setdefault((data, supervision, name), {})
                    values[model] = self.over_data(model, supervision, name)
        saw = {(model, *key) for key, by_model in comparisons.items() for model in by_model
               if self.saw_labels(model, *key[1:])}  # fmt: skip
        return _winners(comparisons, saw)

    def saw_labels(self, model: str, supervision: str, name: str) -> bool:
        """Whether a metric depends on a threshold that saw the labels of the test images, on any data set."""
        return bool(self.data_with_seen_labels(model, supervision, name))

    def data_with_seen_labels(self, model: str, supervision: str, name: str) -> set[str]:
        """Return the data sets on which a metric depends on a threshold that saw the labels of the test images."""
        return {row.data for row in self.rows_of(model, supervision) if row.saw_labels(name)}


def _winners(
    comparisons: Comparisons[Data], saw_labels: set[tuple[str, Data, str, str]]
) -> set[tuple[str, Data, str, str]]:
    best = {key: clearly_best(models, is_higher_better(key[-1])) for key, models in comparisons.items()}
    return {
        (model, *key)
        for key, model in best.items()
        if model is not None
        and ((model, *key) not in saw_labels or all((other, *key) in saw_labels for other in comparisons[key]))
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def summarize(results: BenchmarkResults) -> Summary:
    """Group the runs of a results folder into rows."""
    records = results.done + results.failed
    # Another trainer or measurement makes another row, so these count as settings of the model.
    models = distinguish([(record.run.model, _settings(record)) for record in records])
    data = distinguish([(record.run.data, {}) for record in records])
    supervisions = distinguish([(record.run.supervision, {}) for record in records])
    labels = dict(zip((record.key for record in records), zip(models, data, supervisions, strict=True), strict=True))
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in results.done:
        groups.setdefault(labels[record.key], []).append(record)
    rows = [
        SummaryRow(*label, tuple(sorted(group, key=lambda record: record.run.seed))) for label, group in groups.items()
    ]
    return Summary(results, tuple(_sort_by_group(rows)), labels)


def _settings(record: RunRecord) -> dict[str, Any]:
    return {"trainer": record.run.trainer, "measure": record.run.measure.to_dict()}


def _sort_by_group(rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    data = list(dict.fromkeys(row.data for row in rows))
    supervisions = list(dict.fromkeys(row.supervision for row in rows))
    return sorted(rows, key=lambda row: (data.index(row.data), supervisions.index(row.supervision)))


def distinguish(items: Iterable[tuple[ComponentSpec, Mapping[str, Any]]]) -> list[str]:
    """Create labels that differ wherever the settings differ.

    A grid of a configuration may assign the same label to several models; their labels are extended by the settings
    that differ.

    Args:
        items: Models, data modules or kinds of supervision, each with further settings.

    Returns:
        A label for each item, such as ``PatchCore`` or ``PatchCore (backbone=resnet18)``.
    """
    items = list(items)
    settings = [
        {"class_path": json.dumps(spec.class_path or ""), **flatten(spec.init_args), **flatten(more)}
        for spec, more in items
    ]
    by_label: dict[str, list[dict[str, str]]] = {}
    for (spec, _), setting in zip(items, settings, strict=True):
        known = by_label.setdefault(spec.name, [])
        known += [] if setting in known else [setting]
    return [
        spec.name + _label_suffix(setting, by_label[spec.name])
        for (spec, _), setting in zip(items, settings, strict=True)
    ]


def _label_suffix(setting: Mapping[str, str], known: Sequence[Mapping[str, str]]) -> str:
    names = {name: None for other in known for name in other}
    differing = [name for name in names if len({other.get(name) for other in known}) > 1]
    parts = [f"{name.rpartition('.')[2]}={setting.get(name, 'default').strip(chr(34))}" for name in differing]
    return f" ({', '.join(parts)})" if parts else ""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested settings to dotted names, with values as JSON."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.dumps(value, sort_keys=True)
    return flat
