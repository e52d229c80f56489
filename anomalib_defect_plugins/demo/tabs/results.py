"""The Results tab: tables and plots of a benchmark, and two of its runs on the same test images."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.demo.components.benchmark_figures import (
    Filters,
    Selection,
    render_heat_maps,
    render_pareto_plot,
    render_table,
    select,
)
from anomalib_defect_plugins.demo.components.listeners import UNQUEUED, Updates
from anomalib_defect_plugins.demo.components.run_comparison import (
    ERROR_SOURCES,
    IMAGE_FILTERS,
    RunPair,
    render_comparison,
)
from anomalib_defect_plugins.demo.resources import asset, render_template
from anomalib_defect_plugins.demo.services.benchmark_process import BenchmarkProcess
from anomalib_defect_plugins.demo.services.cache import Cache
from anomalib_defect_plugins.demo.services.results_store import ResultsStore, RunInfo
from anomalib_defect_plugins.demo.user_errors import render_user_errors, show_user_errors
from anomalib_defect_plugins.report.assets import SORT_SCRIPT
from anomalib_defect_plugins.report.labels import metric_title
from anomalib_defect_plugins.report.summary import Summary

VIEWS: dict[str, Callable[[Selection], str]] = {
    "Table": render_table,
    "Accuracy and latency": render_pareto_plot,
    "Categories": render_heat_maps,
}
"""Renderer of each view."""

DEFAULT_METRICS = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_AUPRO", "pixel_IoU")
"""Metrics that are selected initially, as far as the benchmark has them."""

FILTER_WIDTHS = {"Models": 2, "Data": 2, "Supervision": 2, "Metrics": 3}
"""Relative width of each filter."""

MAX_CACHED_VIEWS = 32
"""Rendered views kept in memory: rendering takes a second, and most users look at the same ones."""

POLL_INTERVAL_S = 1.0
"""Interval at which the progress of a benchmark is shown."""


def add_tab(store: ResultsStore, tab: gr.Tab, user: gr.BrowserState) -> None:
    """Add the contents of the tab.

    Args:
        store: Store of the results.
        tab: The tab; unused, since it is filled from the start.
        user: Token of the user.
    """
    del tab
    benchmark = BuiltInBenchmark(BenchmarkProcess(store.root / "embedded"), user)
    with gr.Column(visible=False) as body:
        figures, comparison = BenchmarkFigures(store), RunComparison(store)
    known_runs = gr.State(0)
    outputs = [known_runs, body, *benchmark.outputs, *figures.outputs, *comparison.outputs]
    options = {**UNQUEUED, "outputs": outputs}

    def open_tab(token: str) -> Updates:
        """Fill the tab for a new user."""
        count = len(store.runs())
        filled = {**figures.open(), **comparison.open()} if count else {}
        progress = benchmark.show_progress(count, token)
        return {known_runs: count, body: gr.update(visible=count > 0), **progress, **filled}

    def poll(known: int, token: str, data: str | None, *selected: Any) -> Updates:
        """Show the progress of the benchmark; its first results fill the tab, later ones extend the choices."""
        count = len(store.runs())
        if count and not known:
            return {**open_tab(token), **comparison.show_initial()}
        if not count:
            return {known_runs: 0, body: gr.update(visible=False), **benchmark.show_progress(0, token)}
        refreshed = {**figures.refresh(*selected), **comparison.refresh(data)} if count != known else {}
        return {known_runs: count, **benchmark.show_progress(count, token), **refreshed}

    # The images are loaded after the table, so that the page appears early.
    gr.on(None, open_tab, user, **options).then(comparison.show_first, **comparison.show_options)
    benchmark.timer.tick(poll, [known_runs, user, comparison.data, *figures.selected], **options)


class BuiltInBenchmark:
    """Controls to run the built-in benchmark when there are no results.

    Args:
        process: The benchmark process.
        user: Token of the user.
    """

    def __init__(self, process: BenchmarkProcess, user: gr.BrowserState) -> None:
        self.process = process
        with gr.Column(visible=False, elem_classes="benchmark-progress") as self.body:
            self.progress = gr.HTML(apply_default_css=False)
            with gr.Row(elem_classes="buttons"):
                self.start_button = gr.Button("Run the built-in benchmark", variant="primary", scale=0, min_width=290)
                self.stop_button = gr.Button("Stop", variant="stop", scale=0, min_width=120)
        self.timer = gr.Timer(POLL_INTERVAL_S, active=False)
        self.outputs = [self.body, self.progress, self.start_button, self.stop_button, self.timer]
        self.start_button.click(self.start, user, self.outputs, **UNQUEUED)
        self.stop_button.click(self.stop, user, **UNQUEUED)  # the timer shows it: two might answer out of order

    def start(self, token: str) -> Updates:
        """Start the benchmark, or continue it with the missing runs."""
        self.process.start(token)
        return self.show_progress(0, token)

    def stop(self, token: str) -> None:
        """Stop the benchmark if it is the user's own; finished runs are kept."""
        if token == self.process.progress().owner:
            self.process.stop()

    def show_progress(self, count: int, token: str) -> Updates:
        """Show the progress of the benchmark.

        Args:
            token: Token of the user; only who has started the benchmark can stop it.
            count: Number of runs in the results; with some, the controls are hidden unless the benchmark is active.
        """
        progress = self.process.progress()
        running = progress.state in {"running", "stopping"}
        is_stoppable = running and token == progress.owner
        folder = self.process.out.parent.name
        return {
            self.body: gr.update(visible=not count or progress.state not in {"idle", "done"}),
            self.progress: render_template("benchmark_progress.html", progress=progress, folder=folder),
            self.start_button: gr.update(visible=not running),
            self.stop_button: gr.update(visible=is_stoppable, interactive=progress.state == "running"),
            self.timer: gr.update(active=running),
        }


class BenchmarkFigures:
    """Table and plots of a benchmark, with filters.

    Args:
        store: Store of the results.
    """

    def __init__(self, store: ResultsStore) -> None:
        self.store = store
        self.rendered = Cache(MAX_CACHED_VIEWS)
        gr.HTML("<h2>Benchmark</h2>", elem_classes="demo-section", apply_default_css=False)
        self.benchmark = gr.Dropdown([], label="Results folder", visible=False)
        with gr.Row(elem_classes="filters"):
            self.filters = [
                gr.Dropdown([], multiselect=True, label=f"{name} (none: all)", min_width=140, scale=width)
                for name, width in FILTER_WIDTHS.items()
            ]
        self.view = gr.Radio(list(VIEWS), value=next(iter(VIEWS)), label="View")
        script = f"{SORT_SCRIPT}\n{asset('benchmark_table.js')}"
        self.figure = gr.HTML(js_on_load=script, apply_default_css=False, elem_id="figures")
        self.selected = [self.view, self.benchmark, *self.filters]
        self.outputs = [self.benchmark, *self.filters, self.figure]
        filled = [*self.filters, self.figure]
        self.benchmark.input(self.select_benchmark, [self.view, self.benchmark], filled, **UNQUEUED)
        changes = [self.view.input, *(dropdown.input for dropdown in self.filters)]
        gr.on(changes, self.draw, self.selected, self.figure, trigger_mode="always_last", **UNQUEUED)

    def open(self) -> Updates:
        """Show the table of the first results folder."""
        summaries = self.store.summaries()
        name, summary = next(iter(summaries.items()))
        folders = gr.update(choices=list(summaries), value=name, visible=len(summaries) > 1)
        return {self.benchmark: folders, **self._fill(next(iter(VIEWS)), summary)}

    def _fill(self, view: str, summary: Summary) -> Updates:
        """Reset the filters and render the view."""
        metrics = [name for name in DEFAULT_METRICS if name in summary.metrics]
        values: list[list[str]] = [[], [], [], metrics]
        updates = [
            gr.update(choices=choices, value=value) for choices, value in zip(_choices(summary), values, strict=True)
        ]
        figure = self._render(view, summary, Filters(metrics=tuple(metrics)))
        return {**dict(zip(self.filters, updates, strict=True)), self.figure: figure}

    def _render(self, view: str, summary: Summary, filters: Filters) -> str:
        key = view, summary.results.folder, filters
        return self.rendered(key, summary, lambda: VIEWS[view](select(summary, filters)))

    @show_user_errors
    def select_benchmark(self, view: str, benchmark: str) -> Updates:
        """Show another results folder."""
        return self._fill(view, self._summary(view, benchmark))

    def refresh(self, view: str, benchmark: str, *filters: Sequence[str]) -> Updates:
        """Add new results to the view and to the choices; the current selection is kept."""
        summaries = self.store.summaries()
        folders = gr.update(choices=list(summaries), visible=len(summaries) > 1)
        updates = [gr.update(choices=choices) for choices in _choices(self._summary(view, benchmark))]
        figure = self.draw(view, benchmark, *filters)
        return {self.benchmark: folders, self.figure: figure, **dict(zip(self.filters, updates, strict=True))}

    @render_user_errors
    def draw(self, view: str, benchmark: str | None, *filters: Sequence[str]) -> str:
        """Render what matches the filters."""
        if benchmark is None:
            return ""
        return self._render(view, self._summary(view, benchmark), Filters(*map(tuple, filters)))

    def _summary(self, view: str, benchmark: str) -> Summary:
        summaries = self.store.summaries()
        check_one_of("view", view, VIEWS)
        check_one_of("results folder", benchmark, summaries)
        return summaries[benchmark]


def _choices(summary: Summary) -> list[Sequence[Any]]:
    metrics = [(metric_title(name), name) for name in summary.metrics]
    return [summary.models, summary.data, summary.supervisions, metrics]


class RunComparison:
    """Two runs on the same test images.

    Args:
        store: Store of the results.
    """

    def __init__(self, store: ResultsStore) -> None:
        self.store = store
        gr.HTML("<h2>Compare two models</h2>", elem_classes="demo-section", apply_default_css=False)
        with gr.Row(elem_classes="filters long"):
            self.data, self.a, self.b = (gr.Dropdown([], label=name) for name in ("Test data", "Model A", "Model B"))
        with gr.Row(elem_classes="filters"):
            show = gr.Radio([(label, key) for key, label in IMAGE_FILTERS.items()], value="all", label="Show")
            errors_of = gr.Radio(
                [(label, key) for key, label in ERROR_SOURCES.items()], value="either", label="Errors of"
            )
        script = asset("navigation.js")
        self.image = gr.HTML(js_on_load=script, apply_default_css=False, elem_id="run-comparison")
        self.outputs = [self.data, self.a, self.b, self.image]
        inputs = [self.a, self.b, show, errors_of]
        self.show_options = {**UNQUEUED, "inputs": inputs, "outputs": self.image, "trigger_mode": "always_last"}
        selected = self.data.input(self.select_data, self.data, [self.a, self.b], **UNQUEUED)
        selected.then(self.show_first, **self.show_options)
        changes = [self.a.input, self.b.input, show.input, errors_of.input]
        gr.on(changes, self.show_first, **self.show_options)
        # Gradio drops the data of an event that it defers, so the script itself waits for the answer.
        self.image.navigate(self.show_image, **{**self.show_options, "trigger_mode": "multiple"})

    def open(self) -> Updates:
        """Select the first data and two runs on it."""
        data = self._data()
        return {self.data: gr.update(choices=data, value=data[0]), **self.select_data(data[0])}

    def refresh(self, data: str | None) -> Updates:
        """Add new data and runs to the choices; the current selection is kept."""
        runs = gr.update(choices=self._labels(self._runs(data)) if data else [])
        return {self.data: gr.update(choices=self._data()), self.a: runs, self.b: runs}

    def _data(self) -> list[str]:
        return list(dict.fromkeys(run.data for run in self.store.runs()))

    def show_initial(self) -> Updates:
        """Show the first image of the initially selected runs."""
        a, b = _default_pair(self._runs(self._data()[0]))
        return {self.image: self.show_first(a, b, "all", "either")}

    def _runs(self, data: str) -> list[RunInfo]:
        return [run for run in self.store.runs() if run.data == data]

    def select_data(self, data: str) -> Updates:
        """Select two runs on a data set."""
        runs = self._runs(data)
        choices = self._labels(runs)
        a, b = _default_pair(runs)
        return {self.a: gr.update(choices=choices, value=a), self.b: gr.update(choices=choices, value=b)}

    @staticmethod
    def _labels(runs: Sequence[RunInfo]) -> list[tuple[str, str]]:
        several = len({run.benchmark for run in runs}) > 1
        return [(_label(run, several), run.key) for run in runs]

    @render_user_errors
    def show_first(self, a: str | None, b: str | None, show: str, errors_of: str) -> str:
        """Render the first of the selected images."""
        return self._render(a, b, show, errors_of, 0)

    @render_user_errors
    def show_image(self, a: str | None, b: str | None, show: str, errors_of: str, event: gr.EventData) -> str:
        """Render the image at the position that the event requests."""
        position = event._data.get("position") if isinstance(event._data, dict) else None
        return self._render(a, b, show, errors_of, position)

    def _render(self, a: str | None, b: str | None, show: str, errors_of: str, position: Any) -> str:
        if a is None or b is None:
            return ""
        pair = RunPair(self.store, self.store.run(a), self.store.run(b), show, errors_of)
        return render_comparison(pair, position)


def _label(run: RunInfo, with_benchmark: bool) -> str:
    return f"{run.model} · {run.supervision} · seed {run.seed}" + (f" · {run.benchmark}" if with_benchmark else "")


def _default_pair(runs: Sequence[RunInfo]) -> tuple[str | None, str | None]:
    """Choose the first run and the first of another model, if possible with the same supervision and seed."""
    if not runs:
        return None, None
    first = runs[0]

    def preference(run: RunInfo) -> tuple[bool, bool, bool]:
        return run.model != first.model, run.supervision == first.supervision, run.seed == first.seed

    return first.key, max(runs, key=preference).key
