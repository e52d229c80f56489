"""The content of a report: tables, plots and examples, in Markdown and HTML."""

import argparse
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from results_folder import Layout, make_content, make_run, write_results, write_run, write_table

from anomalib_defect_plugins.cli.report import add_parser
from anomalib_defect_plugins.report import captions, tables, write_report
from anomalib_defect_plugins.report.labels import metric_title, primary_metrics, three_significant, with_spread
from anomalib_defect_plugins.report.latency_tables import latency_overview, latency_table
from anomalib_defect_plugins.report.markdown import escape, fenced
from anomalib_defect_plugins.report.plot_style import PALETTE, marks
from anomalib_defect_plugins.report.plots import pareto_panels
from anomalib_defect_plugins.report.summary import Summary, summarize
from anomalib_defect_plugins.report.tables import Table
from anomalib_defect_plugins.results.reader import read_results

NASTY = '<img src=x onerror="alert(1)">|*b* `c` $\\frac{'
"""Text that is markup to HTML, to Markdown and to matplotlib."""

UNWRITABLE = "\x00\ud800"
"""Characters that JSON can represent and UTF-8 cannot."""

TINY = Layout(models=("a",), data=("brick",), seeds=(0,), images=2, maps=False, latency=False)


def summary_of(root: Path, *contents: dict[str, Any]) -> Summary:
    for content in contents:
        write_run(root / "runs" / content["key"], content)
    return summarize(read_results(root))


def runs_of(values: Mapping[str, Sequence[float]], **more: Any) -> list[dict[str, Any]]:
    """Create runs on one data set from the image AUROC of each model by seed."""
    return [
        make_content(make_run(model, seed=seed), {"image_AUROC": value}, **more)
        for model, by_seed in values.items()
        for seed, value in enumerate(by_seed)
    ]


def texts_of(table: Table | None) -> dict[str, list[str]]:
    assert table is not None
    return {row[0].text: [("**" if cell.bold else "") + cell.text for cell in row[1:]] for row in table.rows}


def test_a_row_has_mean_and_spread_and_the_best_is_bold(tmp_path: Path) -> None:
    # Means 0.92 and 0.82, spreads 0.02: the interval reaches 2.776 * 0.01633 = 0.045 to each side of 0.1.
    summary = summary_of(tmp_path, *runs_of({"a": [0.90, 0.92, 0.94], "b": [0.80, 0.82, 0.84]}))
    (table,) = tables.metric_tables(summary)
    assert texts_of(table) == {
        "a": ["brick", "normal", "**0.920 ± 0.020", "3"],
        "b": ["brick", "normal", "0.820 ± 0.020", "3"],
    }


def test_nothing_is_bold_if_the_spread_is_too_large(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, *runs_of({"a": [0.90, 0.92, 0.94], "b": [0.88, 0.90, 0.92]}))
    assert summary.best == set()


def test_there_is_a_row_for_each_model_and_supervision_and_a_column_for_each_data_set(tmp_path: Path) -> None:
    contents = [
        make_content(make_run(model, data, supervision, seed), {"pixel_AUROC": 0.5, "pixel_AP": value + seed / 10})
        for model, data, supervision, seed, value in [
            ("a", "brick", "normal", 0, 0.1),
            ("a", "brick", "normal", 1, 0.1),
            ("a", "grass", "normal", 0, 0.3),
            ("b", "brick", "masks", 0, 0.6),
        ]
    ]
    auroc, precision = tables.data_tables(summary_of(tmp_path, *contents))
    assert (auroc.title, precision.title) == ("pixel AUROC by data set", "pixel AP by data set")
    assert precision.columns == ["model", "supervision", "brick", "grass"]
    # Spread of 0.1 and 0.2: 0.1 / sqrt(2).
    assert texts_of(precision) == {
        "a": ["normal", "0.150 ± 0.071 (2)", "0.300 (1)"],
        "b": ["masks", "0.600 (1)", "–"],
    }


def test_rows_that_were_compared_at_other_sizes_of_masks_are_not_compared(tmp_path: Path) -> None:
    contents = runs_of({"a": [0.90, 0.92, 0.94], "b": [0.80, 0.82, 0.84]})
    for content in contents[:3]:
        content["resolution"] = "original"
    summary = summary_of(tmp_path, *contents)
    assert summary.best == set()
    assert tables.remarks(summary)[1].startswith("3 of 6 runs compared maps with masks at the size of the model")


def test_rows_that_were_tested_on_other_images_are_not_compared(tmp_path: Path) -> None:
    contents = runs_of({"a": [0.90, 0.92, 0.94], "b": [0.80, 0.82, 0.84]})
    contents[0]["split"] = {**contents[0]["split"], "hash": "1" * 64}
    summary = summary_of(tmp_path, *contents)
    assert summary.best == set()
    assert tables.remarks(summary) == [
        "The runs of brick under normal did not use the same images or sizes of masks, so none is marked as the best."
    ]


def test_the_summary_has_the_mean_over_data_and_its_spread_over_seeds(tmp_path: Path) -> None:
    # Seed 0: (0.8 + 0.6) / 2 = 0.7; seed 1: (0.9 + 0.6) / 2 = 0.75. Mean 0.725, spread 0.05 / sqrt(2) = 0.0354. Seed 2
    # was not run on both, so it is not used.
    values = {("brick", 0): 0.8, ("brick", 1): 0.9, ("brick", 2): 0.1, ("grass", 0): 0.6, ("grass", 1): 0.6}
    contents = [make_content(make_run("a", data, seed=seed), {"pixel_IoU": v}) for (data, seed), v in values.items()]
    summary = summary_of(tmp_path, *contents)
    assert texts_of(tables.summary_table(summary))["a"][1] == "0.725 ± 0.035"


def test_costs_are_shown_in_units(tmp_path: Path) -> None:
    cost = {"train_seconds": 12.345, "peak_host_bytes": 3 * 2**30, "parameters": 11_200_000, "peak_gpu_bytes": None}
    summary = summary_of(tmp_path, *runs_of({"a": [0.5]}, cost=cost))
    table = tables.cost_table(summary)
    assert table is not None
    assert table.columns[3:6] == ["training, s", "peak memory, GiB", "parameters, M"]
    assert texts_of(table)["a"][2:5] == ["12.3", "3.00", "11.2"]


def latency(median: float, engine: str = "openvino", precision: str = "FP32", batch: int = 1) -> dict[str, Any]:
    times = {"median_ms": median, "p95_ms": 2 * median, "p99_ms": 3 * median, "images_per_second": 1000 / median}
    return {"engine": engine, "precision": precision, "device": "CPU", "batch": batch, **times}


def test_times_are_averaged_over_the_runs_and_the_export_difference_is_the_maximum(tmp_path: Path) -> None:
    first, second = runs_of({"a": [0.5, 0.6]})
    changes = {"images": 40, "score_difference": 1e-6, "changed_verdicts": 2, "torch_image_AUROC": 0.75}
    more = {"images": 40, "score_difference": 2e-6, "changed_verdicts": 1, "torch_image_AUROC": 0.75}
    first |= {"latency": [latency(10.0)], "export_difference": {"FP32": 1e-6}}
    first |= {"export_changes": {"FP32": changes | {"image_AUROC": 0.7}}}
    second |= {"latency": [latency(14.0)], "export_difference": {"FP32": 3e-6}}
    second |= {"export_changes": {"FP32": more | {"image_AUROC": 0.76}}}
    summary = summary_of(tmp_path, first, second)
    # Mean 12, spread sqrt(2 * 2^2 / 1) = 2.83. The largest change of the AUROC is 0.70 - 0.75.
    assert texts_of(latency_table(summary))["a"] == [
        *("OpenVINO FP32", "CPU", "1", "12.0 ± 2.8", "24.0", "36.0", "85.7"),
        *("3.0e-06", "2.0e-06", "3/80", "-0.0500", "2"),
    ]
    assert texts_of(latency_overview(summary))["a"] == ["12.0 ± 2.8 (3/80)"]


def test_a_graph_with_values_that_are_not_finite_is_not_hidden_by_another_run(tmp_path: Path) -> None:
    first, second = runs_of({"a": [0.5, 0.6]}, latency=[latency(10.0, precision="INT8")])
    first["export_difference"], second["export_difference"] = {"INT8": 0.1}, {"INT8": None}
    assert texts_of(latency_table(summary_of(tmp_path, first, second)))["a"][7] == "not finite"


def test_a_model_is_marked_as_the_fastest_only_if_the_spread_of_its_calls_allows_it(tmp_path: Path) -> None:
    def overview(root: Path, slow: float, **more: Any) -> dict[str, list[str]]:
        runs = [
            make_content(make_run(name), {"image_AUROC": 0.5}, latency=[latency(time)], **more)
            for name, time in (("a", 10.0), ("b", slow))
        ]
        return texts_of(latency_overview(summary_of(root, *runs)))

    # 95 % of the calls of a take at most 20 ms.
    assert overview(tmp_path / "clear", 20.1) == {"a": ["**10.0"], "b": ["20.1"]}
    assert overview(tmp_path / "noise", 19.9) == {"a": ["10.0"], "b": ["19.9"]}
    assert overview(tmp_path / "busy", 90.0, environment={"shared": True}) == {"a": ["10.0 †"], "b": ["90.0 †"]}


def test_times_on_a_shared_machine_are_marked(tmp_path: Path) -> None:
    alone, beside = (
        make_content(make_run(name), {"image_AUROC": 0.5}, latency=[latency(10.0)], environment={"shared": shared})
        for name, shared in (("a", False), ("b", True))
    )
    summary = summary_of(tmp_path, alone, beside)
    for table in (latency_table(summary), latency_overview(summary), tables.summary_table(summary)):
        times = {model: [cell for cell in cells if cell.startswith("10.0")] for model, cells in texts_of(table).items()}
        assert times == {"a": ["10.0"], "b": ["10.0 †"]}
    assert "†" in captions.latency_note(summary)
    assert [line for line in tables.remarks(summary) if "†" in line]
    assert "†" in write_report(tmp_path).read_text()


def test_older_runs_are_marked_by_their_runner_and_runs_on_an_unshared_machine_are_not(tmp_path: Path) -> None:
    for name, environment, shared in (
        ("new", {"runner": "ray", "shared": False}, False),
        ("old", {"runner": "ray"}, True),
    ):
        run = make_content(make_run(), {"image_AUROC": 0.5}, latency=[latency(1.0)], environment=environment)
        summary = summary_of(tmp_path / name, run)
        assert ("†" in captions.latency_note(summary)) == ("†" in str(latency_table(summary))) == shared


def test_the_pareto_plot_uses_the_latency_of_the_exported_model_for_one_image(tmp_path: Path) -> None:
    times = [latency(9.0, "torch"), latency(30.0, batch=8), latency(5.0), latency(4.0, precision="INT8")]
    (panel,) = pareto_panels(summary_of(tmp_path, *runs_of({"a": [0.5], "b": [0.4]}, latency=times)))
    assert {name: time for name, (time, _) in panel.points.items()} == {"a": 5.0, "b": 5.0}
    assert panel.front == ["a"]


def test_models_share_a_pareto_plot_only_with_the_same_data_and_supervision(tmp_path: Path) -> None:
    runs = [make_run("a"), make_run("b"), make_run("b", "grass"), make_run("a", supervision="masks")]
    contents = [make_content(run, {"image_AUROC": 0.5}, latency=[latency(5.0)]) for run in runs]
    panels = pareto_panels(summary_of(tmp_path, *contents))
    assert {(panel.supervision, tuple(sorted(panel.data)), *panel.points) for panel in panels} == {
        ("normal", ("brick",), "a"),
        ("normal", ("brick", "grass"), "b"),
        ("masks", ("brick",), "a"),
    }


def test_names_and_numbers_are_formatted_for_readers() -> None:
    assert metric_title("image_AUROC") == "image AUROC"
    assert primary_metrics(["pixel_AP", "image_F1Score", "image_AUROC"]) == ["image_AUROC", "pixel_AP"]
    assert [three_significant(value) for value in (0, 0.01234, 1.5, 12, 119.6, 1234.5)] == [
        *("0.00", "0.0123", "1.50", "12.0", "120", "1234"),
    ]
    assert with_spread(None) == "–"


def test_every_model_has_its_mark_and_eight_models_have_eight_colours() -> None:
    assert len({mark.colour for mark in marks(list("abcdefgh")).values()}) == len(PALETTE) == 8
    assert len(set(marks(list("abcdefghijkl")).values())) == 12


def test_failed_runs_are_listed_with_their_error_and_command(tmp_path: Path) -> None:
    root = write_results(tmp_path / "made", Layout(data=("brick",), failed=[("PaDiM", 1)], images=2, maps=False))
    page = write_report(root)
    written = page.read_text(), (page.parent / "report.md").read_text()
    for text in written:
        assert "the loss is nan at step 12" in text
        assert "seed 1 (failed)" in text
        assert len(re.findall(r"anomalib-defects benchmark --config benchmark.yaml --only [0-9a-f]{16}", text)) == 6


def test_a_folder_with_only_failed_runs_has_a_report(tmp_path: Path) -> None:
    failed = {"status": "failed", "error": "no memory"}
    write_run(tmp_path / "runs" / "k", make_content(make_run(), {}) | failed)
    page = write_report(tmp_path)
    assert "no memory" in page.read_text()
    assert not list((page.parent / "plots").glob("*"))


def nasty_results(root: Path) -> Path:
    """Write results in which every name that a user chooses is markup."""
    run = make_run(NASTY + UNWRITABLE, NASTY, NASTY)
    run["model"]["init_args"] = {NASTY: NASTY}
    more = {"environment": {"cpu": NASTY}, "command": NASTY, "latency": [latency(1.0, NASTY)]}
    content = make_content(run, {"image_AUROC": 0.5, NASTY: 0.4}, **more)
    failed = make_content({**run, "seed": 1}, {}, status="failed", error=NASTY)
    folder = root / "runs" / content["key"]
    write_run(folder, content)
    write_run(root / "runs" / failed["key"], failed)
    image = root / f"{NASTY.replace('/', '')}.png"
    (folder / "maps").mkdir()
    for path in (image, folder / "maps" / "0.png"):
        Image.new("L", (4, 4)).save(path)
    row = {"image_path": str(image), "label": 1, "defect_type": NASTY, "score": 0.9, "map": "0.png"}
    write_table(folder / "images.csv", [row])
    (root / "benchmark.yaml").write_text(f"name: {NASTY}\n```\n</pre>")
    return root


class Elements(HTMLParser):
    """Collects the elements of a page and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))


def test_nothing_from_the_results_becomes_markup_in_the_page(tmp_path: Path) -> None:
    elements = Elements(write_report(nasty_results(tmp_path)).read_text()).elements
    assert not [tag for tag, attributes in elements if "onerror" in attributes]
    assert {attributes["src"][:5] for tag, attributes in elements if tag == "img"} == {"data:"}
    assert sum(tag == "script" for tag, _ in elements) == 1


def test_nothing_from_the_results_becomes_markup_in_markdown(tmp_path: Path) -> None:
    text = (write_report(nasty_results(tmp_path)).parent / "report.md").read_text()
    outside = re.sub(r"(`{3,})\w*\n.*?\n\1\n", "", text, flags=re.DOTALL)
    assert "<img" not in outside
    assert not re.search(r"(?<!\\)\*b", outside)
    # Every row of a table has as many cells as its header.
    for table in re.findall(r"(?:^\|.*\n)+", outside, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_markdown_quotes_markup_and_keeps_code_in_its_fence() -> None:
    assert escape("a_b|*c* <d> [e](f)\ng") == r"a\_b\|\*c\* &lt;d&gt; \[e\](f) g"
    assert fenced("x\n```\ny", "sh") == "````sh\nx\n```\ny\n````"


def test_the_page_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    page = write_report(write_results(tmp_path / "made", Layout(data=("brick",), images=4)))
    for tag, attributes in Elements(page.read_text()).elements:
        for name in ("src", "srcset", "href", "action", "data"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
        assert tag != "img" or attributes["alt"]
    assert not re.search(r"@import|url\(", page.read_text())


def test_writing_the_report_again_removes_plots_of_the_earlier_one(tmp_path: Path) -> None:
    layout = Layout(models=("a",), data=("brick",), images=2, maps=False)
    page = write_report(write_results(tmp_path / "made", layout))
    first = {path.name: path.read_bytes() for path in sorted((page.parent / "plots").iterdir())}
    names = ("categories", "cost", "cost_curve", "pareto")
    assert list(first) == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    write_report(tmp_path / "made")
    assert {path.name: path.read_bytes() for path in sorted((page.parent / "plots").iterdir())} == first
    write_report(write_results(tmp_path / "other", TINY), page.parent)
    assert not list((page.parent / "plots").glob("pareto.*"))
    assert not list(page.parent.rglob(".*"))


def parse(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["report", *map(str, arguments)])


def test_the_command_prints_the_path_of_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_results(tmp_path / "made", TINY)
    options = parse(root, "--out", tmp_path / "out")
    assert options.run(options) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'out' / 'index.html'}\n"


def test_an_unwritable_folder_is_an_error_of_one_line(tmp_path: Path) -> None:
    root = write_results(tmp_path / "made", TINY)
    (tmp_path / "file").write_text("")
    options = parse(root, "--out", tmp_path / "file")
    with pytest.raises(ValueError, match=r"cannot write .*file \(.*\); free space, or choose another folder"):
        options.run(options)
