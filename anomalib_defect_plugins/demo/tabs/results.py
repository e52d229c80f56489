"""The tab of results: the benchmark's figures, and two of its runs on the same test images."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.demo.components.benchmark_figures import (
    TEMPLATES,
    Choice,
    Selection,
    select,
    show_categories,
    show_plot,
    show_table,
)
from anomalib_defect_plugins.demo.components.run_comparison import OF, SHOWN, Pair, show_walk
from anomalib_defect_plugins.demo.resources import asset
from anomalib_defect_plugins.demo.services.benchmark_process import Maker
from anomalib_defect_plugins.demo.services.cache import Cache
from anomalib_defect_plugins.demo.services.results_store import RunInfo, Store
from anomalib_defect_plugins.demo.user_errors import told, written
from anomalib_defect_plugins.report import TEMPLATES as REPORT_TEMPLATES
from anomalib_defect_plugins.report.labels import figure_title
from anomalib_defect_plugins.report.summary import Summary

VIEWS: dict[str, Callable[[Selection], str]] = {
    "Table": show_table,
    "Accuracy and latency": show_plot,
    "Categories": show_categories,
}
"""What is shown of the figures."""

FIGURES = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_AUPRO", "pixel_IoU")
"""Figures that are shown at first, of those that there are."""

FILTERS = {"Models": 2, "Data": 2, "Supervision": 2, "Metrics": 3}
"""Filters, and how wide each is beside the others."""

DRAWN = 32
"""So many tables and plots are kept: drawing takes a second, and most people want the same ones."""

PERIOD = 1.0
"""Seconds between two looks at a process that makes results."""

WALK = asset("walk.js")

SORT = (REPORT_TEMPLATES / "sort.js").read_text(encoding="utf-8")

TABLE = asset("table.js")
TABLE = TABLE.replace("SORT", SORT.replace("document.query", "element.query"))

DIRECT: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
"""Listeners that answer at once."""

Updates = dict[Any, Any]
"""New values by component."""


def add_tab(store: Store, tab: gr.Tab) -> None:
    """Add what is in the tab.

    Args:
        store: The results.
        tab: The tab, of which nothing is needed: it is the first one.
    """
    del tab
    making = Making(Maker(store.root / "embedded"))
    with gr.Column(visible=False) as body:
        figures, walk = Figures(store), Walk(store)
    seen = gr.State(0)
    outputs = [seen, body, *making.outputs, *figures.outputs, *walk.outputs]
    direct = {**DIRECT, "outputs": outputs}

    def open_tab() -> Updates:
        """Fill the tab, for someone who has just come."""
        count = len(store.runs())
        filled = {**figures.open(), **walk.open()} if count else {}
        return {seen: count, body: gr.update(visible=count > 0), **making.look(count), **filled}

    def tick(known: int, *chosen: Any) -> Updates:
        """Look how far the making is; the first results open the tab, and later ones come among its choices."""
        count = len(store.runs())
        if count and not known:
            return {**open_tab(), **walk.first()}
        offered = {**figures.offer(*chosen), **walk.offer()} if count != known else {}
        return {seen: count, **making.look(count), **offered}

    # The images come after the table, for whoever waits for the page.
    gr.on(None, open_tab, **direct).then(walk.look, **walk.looking)
    making.timer.tick(tick, [seen, *figures.chosen], **direct)


class Making:
    """A place to make results where there are none.

    Args:
        maker: What makes them.
    """

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        with gr.Column(visible=False, elem_classes="making") as self.offer:
            self.said = gr.HTML(apply_default_css=False)
            with gr.Row(elem_classes="buttons"):
                self.make = gr.Button("Make the embedded results", variant="primary", scale=0, min_width=290)
                self.stop = gr.Button("Stop", variant="stop", scale=0, min_width=120)
        self.timer = gr.Timer(PERIOD, active=False)
        self.outputs = [self.offer, self.said, self.make, self.stop, self.timer]
        self.make.click(self.begin, None, self.outputs, **DIRECT)
        self.stop.click(self.end, None, self.outputs, **DIRECT)

    def begin(self) -> Updates:
        """Begin, or go on with what is missing."""
        self.maker.start()
        return self.look(0)

    def end(self) -> Updates:
        """Stop; what is done is kept."""
        self.maker.stop()
        return self.look(0)

    def look(self, count: int) -> Updates:
        """Show how far it is.

        Args:
            count: How many runs there are; with some, and nothing going on, nothing is offered.
        """
        progress = self.maker.progress()
        running = progress.state in {"running", "stopping"}
        said = TEMPLATES.get_template("making.html").render(progress=progress, folder=self.maker.out.parent.name)
        return {
            self.offer: gr.update(visible=not count or progress.state not in {"idle", "done"}),
            self.said: said,
            self.make: gr.update(visible=not running),
            self.stop: gr.update(visible=running, interactive=progress.state == "running"),
            self.timer: gr.update(active=running),
        }


class Figures:
    """The figures of the benchmark.

    Args:
        store: The results.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.drawn = Cache(DRAWN)
        gr.HTML("<h2>Benchmark</h2>", elem_classes="demo-section", apply_default_css=False)
        self.benchmark = gr.Dropdown([], label="Results folder", visible=False)
        with gr.Row(elem_classes="filters"):
            filters = [
                gr.Dropdown([], multiselect=True, label=f"{name} (none: all)", min_width=140, scale=scale)
                for name, scale in FILTERS.items()
            ]
        self.view = gr.Radio(list(VIEWS), value=next(iter(VIEWS)), label="View")
        self.shown = gr.HTML(js_on_load=TABLE, apply_default_css=False, elem_id="figures")
        self.filters = filters
        self.chosen = [self.view, self.benchmark, *filters]
        self.outputs = [self.benchmark, *filters, self.shown]
        self.benchmark.input(self.turn, [self.view, self.benchmark], [*filters, self.shown], **DIRECT)
        changes = [it.input for it in (self.view, *filters)]
        gr.on(changes, self.draw, self.chosen, self.shown, trigger_mode="always_last", **DIRECT)

    def open(self) -> Updates:
        """Show the table of the first results folder."""
        summaries = self.store.summaries()
        name, summary = next(iter(summaries.items()))
        folders = gr.update(choices=list(summaries), value=name, visible=len(summaries) > 1)
        return {self.benchmark: folders, **self._fill(next(iter(VIEWS)), summary)}

    def _fill(self, view: str, summary: Summary) -> Updates:
        """Set the filters as they are at first, and show what they leave."""
        wanted = [name for name in FIGURES if name in summary.figures]
        values = ([], [], [], wanted)
        updates = [
            gr.update(choices=choices, value=value) for choices, value in zip(_choices(summary), values, strict=True)
        ]
        shown = self._write(view, summary, Choice(figures=tuple(wanted)))
        return {**dict(zip(self.filters, updates, strict=True)), self.shown: shown}

    def _write(self, view: str, summary: Summary, choice: Choice) -> str:
        return self.drawn((view, summary.results.folder, choice), summary, lambda: VIEWS[view](select(summary, choice)))

    @told
    def turn(self, view: str, benchmark: str) -> Updates:
        """Show another results folder."""
        return self._fill(view, self._summary(view, benchmark))

    def offer(self, view: str, benchmark: str, *filters: Sequence[str]) -> Updates:
        """Show what has come since, and offer it among the choices; what is chosen stays."""
        summaries = self.store.summaries()
        folders = gr.update(choices=list(summaries), visible=len(summaries) > 1)
        updates = [gr.update(choices=it) for it in _choices(self._summary(view, benchmark))]
        shown = self.draw(view, benchmark, *filters)
        return {self.benchmark: folders, self.shown: shown, **dict(zip(self.filters, updates, strict=True))}

    @written
    def draw(self, view: str, benchmark: str | None, *filters: Sequence[str]) -> str:
        """Show what the filters leave."""
        if benchmark is None:
            return ""
        return self._write(view, self._summary(view, benchmark), Choice(*map(tuple, filters)))

    def _summary(self, view: str, benchmark: str) -> Summary:
        summaries = self.store.summaries()
        check_one_of("view", view, VIEWS)
        check_one_of("results folder", benchmark, summaries)
        return summaries[benchmark]


def _choices(summary: Summary) -> list[Sequence[Any]]:
    figures = [(figure_title(name), name) for name in summary.figures]
    return [summary.models, summary.data, summary.supervisions, figures]


class Walk:
    """Two runs on the same test images.

    Args:
        store: The results.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        gr.HTML("<h2>The same images, two models</h2>", elem_classes="demo-section", apply_default_css=False)
        with gr.Row(elem_classes="filters long"):
            self.data, self.a, self.b = (gr.Dropdown([], label=it) for it in ("Tested on", "Model A", "Model B"))
        with gr.Row(elem_classes="filters"):
            show = gr.Radio([(text, key) for key, text in SHOWN.items()], value="all", label="Show")
            of = gr.Radio([(text, key) for key, text in OF.items()], value="either", label="Errors of")
        self.shown = gr.HTML(js_on_load=WALK, apply_default_css=False, elem_id="walk")
        self.outputs = [self.data, self.a, self.b, self.shown]
        pair = [self.a, self.b, show, of]
        self.looking = {**DIRECT, "inputs": pair, "outputs": self.shown, "trigger_mode": "always_last"}
        self.data.input(self.turn, self.data, [self.a, self.b], **DIRECT).then(self.look, **self.looking)
        gr.on([it.input for it in pair], self.look, **self.looking)
        # An event that Gradio puts off loses what it says, so the script itself waits for the answer.
        self.shown.walk(self.step, **{**self.looking, "trigger_mode": "multiple"})

    def open(self) -> Updates:
        """Choose the first data, and two runs on it."""
        data = self._data()
        return {self.data: gr.update(choices=data, value=data[0]), **self.turn(data[0])}

    def offer(self) -> Updates:
        """Offer what has come since; what is chosen stays."""
        return {self.data: gr.update(choices=self._data())}

    def _data(self) -> list[str]:
        return list(dict.fromkeys(run.data for run in self.store.runs()))

    def first(self) -> Updates:
        """Show the first image of the first two runs."""
        a, b = _first_pair(self._runs(self._data()[0]))
        return {self.shown: self.look(a, b, "all", "either")}

    def _runs(self, data: str) -> list[RunInfo]:
        return [run for run in self.store.runs() if run.data == data]

    def turn(self, data: str) -> Updates:
        """Choose two runs on some data."""
        runs = self._runs(data)
        several = len({run.benchmark for run in runs}) > 1
        choices = [(_label(run, several), run.key) for run in runs]
        a, b = _first_pair(runs)
        return {self.a: gr.update(choices=choices, value=a), self.b: gr.update(choices=choices, value=b)}

    @written
    def look(self, a: str | None, b: str | None, show: str, of: str) -> str:
        """Show the first of the images that are chosen."""
        return self._write(a, b, show, of, 0)

    @written
    def step(self, a: str | None, b: str | None, show: str, of: str, event: gr.EventData) -> str:
        """Show the image of the place that was asked for."""
        place = event._data.get("at") if isinstance(event._data, dict) else None
        return self._write(a, b, show, of, place)

    def _write(self, a: str | None, b: str | None, show: str, of: str, place: Any) -> str:
        if a is None or b is None:
            return ""
        return show_walk(Pair(self.store, self.store.run(a), self.store.run(b), show, of), place)


def _label(run: RunInfo, several: bool) -> str:
    return f"{run.model} · {run.supervision} · seed {run.seed}" + (f" · {run.benchmark}" if several else "")


def _first_pair(runs: Sequence[RunInfo]) -> tuple[str | None, str | None]:
    """Choose the first run, and beside it the first of another model, rather one of the same supervision and seed."""
    if not runs:
        return None, None
    first = runs[0]

    def likeness(run: RunInfo) -> tuple[bool, bool, bool]:
        return run.model != first.model, run.supervision == first.supervision, run.seed == first.seed

    return first.key, max(runs, key=likeness).key
