"""Puts runs together that differ in nothing but the seed, and says which of the rows may be compared."""

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from anomalib_defect_plugins.report.labels import in_units, is_higher_better
from anomalib_defect_plugins.report.statistics import Measured, clearly_best, measure
from anomalib_defect_plugins.results.reader import Results
from anomalib_defect_plugins.results.record import Latency, Record, Setting, Spec

Data = TypeVar("Data")
Contests = dict[tuple[Data, str, str], dict[str, Measured | None]]
"""Models that may be compared, by data, supervision and figure."""


@dataclass(frozen=True)
class Row:
    """Runs of one model on one data set under one supervision.

    Args:
        model: Label, unique among models of other settings.
        data: Likewise.
        supervision: Likewise.
        records: Its runs that are done, by seed.
    """

    model: str
    data: str
    supervision: str
    records: tuple[Record, ...]

    @property
    def contest(self) -> tuple[str, str]:
        """Rows of the same contest may be compared: they were tested with the same images."""
        return self.data, self.supervision

    def figure(self, name: str) -> Measured | None:
        """Mean and spread of a figure."""
        return measure([record.figures[name] for record in self.records if name in record.figures])

    def cost(self, name: str) -> Measured | None:
        """Mean and spread of a cost."""
        return measure([record.cost[name] for record in self.records if name in record.cost])


@dataclass(frozen=True)
class Summary:
    """A results folder in rows.

    Args:
        results: What was read.
        rows: Rows by data and supervision, and within these in the configuration's order.
        labels: Labels of model, data and supervision by the key of the run.
    """

    results: Results
    rows: tuple[Row, ...]
    labels: Mapping[str, tuple[str, str, str]]

    @cached_property
    def models(self) -> list[str]:
        """Labels of the models that have a row."""
        return sorted({row.model for row in self.rows}, key=self._order)

    @cached_property
    def data(self) -> list[str]:
        """Labels of the data."""
        return list(dict.fromkeys(row.data for row in self.rows))

    @cached_property
    def supervisions(self) -> list[str]:
        """Labels of the kinds of supervision."""
        return list(dict.fromkeys(row.supervision for row in self.rows))

    @cached_property
    def figures(self) -> list[str]:
        """Names of the figures."""
        return list(dict.fromkeys(name for row in self.rows for record in row.records for name in record.figures))

    @cached_property
    def best(self) -> set[tuple[str, str, str, str]]:
        """Where a row is clearly the best of its contest: model, data, supervision and figure."""
        contests: Contests[str] = {}
        for row in self.rows:
            if row.contest not in self.unequal:
                for name in self.figures:
                    contests.setdefault((*row.contest, name), {})[row.model] = row.figure(name)
        return _winners(contests)

    @cached_property
    def unequal(self) -> set[tuple[str, str]]:
        """Contests whose rows cannot be compared, as runs of one seed had other images."""
        splits: dict[Hashable, set[str]] = {}
        for row in self.rows:
            for record in row.records:
                splits.setdefault((*row.contest, record.seed), set()).add(str(record.split.get("hash")))
        return {(data, supervision) for (data, supervision, _), hashes in splits.items() if len(hashes) > 1}

    @cached_property
    def times(self) -> dict[str, dict[Setting, list[Latency]]]:
        """The times of all runs of a model, by model and setting."""
        found: dict[str, dict[Setting, list[Latency]]] = {model: {} for model in self.models}
        for row in self.rows:
            for latency in (latency for record in row.records for latency in record.latency):
                found[row.model].setdefault(latency.setting, []).append(latency)
        return {model: of_model for model, of_model in found.items() if of_model}

    @cached_property
    def setting(self) -> Setting | None:
        """Whose latency stands for a model: what most were measured with, rather exported than not, small batches."""
        found = [setting for of_model in self.times.values() for setting in of_model]
        precisions = ("FP32", "FP16", "INT8")

        def rank(it: Setting) -> tuple[int, int, bool, int, Setting]:
            engine, precision, _, batch = it
            place = precisions.index(precision) if precision in precisions else len(precisions)
            return -found.count(it), batch, engine != "openvino", place, it

        return min(found, key=rank, default=None)

    def latency(self, model: str) -> Measured | None:
        """Mean and spread over the runs of a model of the median in ms, at :attr:`setting`."""
        return measure([it.median_ms for it in self.times.get(model, {}).get(self.setting, [])])

    def is_shared(self, model: str, setting: Setting | None = None) -> bool:
        """Whether a time of a model was measured while the machine may have had other runs; see :meth:`latency`."""
        return any(it.shared for it in self.times.get(model, {}).get(setting or self.setting, []))

    @cached_property
    def lines(self) -> list[tuple[str, str]]:
        """The pairs of model and supervision that there are, by supervision."""
        found = dict.fromkeys((row.model, row.supervision) for row in self.rows)
        return sorted(found, key=lambda line: (self.supervisions.index(line[1]), self.models.index(line[0])))

    def rows_of(self, model: str, supervision: str) -> list[Row]:
        """Give the rows of a model under a supervision: one for each data set."""
        return [row for row in self.rows if (row.model, row.supervision) == (model, supervision)]

    def cost(self, model: str, supervision: str, name: str) -> Measured | None:
        """Give mean and spread of a cost over data and seeds, in the unit in which it is shown."""
        records = [record for row in self.rows_of(model, supervision) for record in row.records]
        return in_units(name, measure([record.cost[name] for record in records if name in record.cost]))

    def by_data(self, model: str, supervision: str, name: str) -> dict[str, float]:
        """Give a figure's mean over the seeds by data."""
        rows = self.rows_of(model, supervision)
        return {row.data: found.mean for row in rows if (found := row.figure(name)) is not None}

    def over_data(self, model: str, supervision: str, name: str) -> Measured | None:
        """Give mean and spread over the seeds of a figure's mean over the data; ``None`` if nothing has it.

        Only seeds that all data have count. If there are none, it is the mean of the means, without a spread.
        """
        rows = self.rows_of(model, supervision)
        found = [{it.seed: it.figures[name] for it in row.records if name in it.figures} for row in rows]
        found = [by_seed for by_seed in found if by_seed]
        if not found:
            return None
        common = sorted(set.intersection(*map(set, found)))
        measured = measure([_mean(by_seed[seed] for by_seed in found) for seed in common])
        return measured or Measured(_mean(self.by_data(model, supervision, name).values()), None, 0)

    @cached_property
    def best_over_data(self) -> set[tuple[str, tuple[str, ...], str, str]]:
        """Likewise of the means over the data, among models with the same data."""
        contests: Contests[tuple[str, ...]] = {}
        for model, supervision in self.lines:
            for name in self.figures:
                data = tuple(self.by_data(model, supervision, name))
                if not any((item, supervision) in self.unequal for item in data):
                    contest = contests.setdefault((data, supervision, name), {})
                    contest[model] = self.over_data(model, supervision, name)
        return _winners(contests)

    def _order(self, model: str) -> int:
        return list(dict.fromkeys(label for label, _, _ in self.labels.values())).index(model)


def _winners(contests: Contests[Data]) -> set[tuple[str, Data, str, str]]:
    best = {contest: clearly_best(models, is_higher_better(contest[-1])) for contest, models in contests.items()}
    return {(model, *contest) for contest, model in best.items() if model is not None}


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def summarize(results: Results) -> Summary:
    """Put the runs of a results folder into rows."""
    records = results.done + results.failed
    # A model with another trainer or measurement is another row, so these count as its settings.
    models = distinguish([(record.model, record.settings) for record in records])
    data = distinguish([(record.data, {}) for record in records])
    supervisions = distinguish([(record.supervision, {}) for record in records])
    labels = dict(zip((record.key for record in records), zip(models, data, supervisions, strict=True), strict=True))
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in results.done:
        groups.setdefault(labels[record.key], []).append(record)
    rows = [Row(*label, tuple(sorted(group, key=lambda record: record.seed))) for label, group in groups.items()]
    return Summary(results, tuple(_by_contest(rows)), labels)


def _by_contest(rows: Sequence[Row]) -> list[Row]:
    data = list(dict.fromkeys(row.data for row in rows))
    supervisions = list(dict.fromkeys(row.supervision for row in rows))
    return sorted(rows, key=lambda row: (data.index(row.data), supervisions.index(row.supervision)))


def distinguish(items: Iterable[tuple[Spec, Mapping[str, Any]]]) -> list[str]:
    """Give labels such that settings that differ have labels that differ.

    A grid gives many models one label; to it is added what they differ in.

    Args:
        items: Models, data modules or kinds of supervision, each with settings that it depends on besides.

    Returns:
        A label for each item, such as ``PatchCore`` or ``PatchCore (backbone=resnet18)``.
    """
    items = list(items)
    settings = [
        {"class_path": json.dumps(spec.class_path), **flatten(spec.init_args), **flatten(more)} for spec, more in items
    ]
    by_label: dict[str, list[dict[str, str]]] = {}
    for (spec, _), setting in zip(items, settings, strict=True):
        known = by_label.setdefault(spec.name, [])
        known += [] if setting in known else [setting]
    return [
        spec.name + _addition(setting, by_label[spec.name]) for (spec, _), setting in zip(items, settings, strict=True)
    ]


def _addition(setting: Mapping[str, str], known: Sequence[Mapping[str, str]]) -> str:
    names = {name: None for other in known for name in other}
    differing = [name for name in names if len({other.get(name) for other in known}) > 1]
    parts = [f"{name.rpartition('.')[2]}={setting.get(name, 'default').strip(chr(34))}" for name in differing]
    return f" ({', '.join(parts)})" if parts else ""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Give nested settings as one level of dotted names, the values as JSON."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.dumps(value, sort_keys=True)
    return flat
