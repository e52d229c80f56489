"""Reports of a results folder: Markdown, one HTML page, and plots."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
"""Templates, style and script of the page; the demo uses them too."""

FOLDER = "report"
"""Where a report goes by default, in the results folder."""


def write_report(results: Path, out: Path | None = None) -> Path:
    """Write ``report.md``, ``index.html`` and ``plots/`` of a results folder; each file appears whole or not at all.

    Runs that cannot be read are named on standard error, a line each, and in the report.

    Args:
        results: What ``anomalib-defects benchmark`` has written to.
        out: Folder to write to; ``report`` in the results folder by default. Files of a former report are replaced.

    Returns:
        The page.

    Raises:
        MissingDataError: There is no such results folder.
        InvalidInputError: It holds no run, or nothing can be written.
    """
    from anomalib_defect_plugins.report.html import write_page
    from anomalib_defect_plugins.report.markdown import write_markdown
    from anomalib_defect_plugins.report.plots import PLOTS, render
    from anomalib_defect_plugins.report.summary import summarize
    from anomalib_defect_plugins.results.reader import read_results

    found = read_results(results)
    out = results / FOLDER if out is None else out
    with _writing(out):  # before time is spent on plots
        (out / "plots").mkdir(parents=True, exist_ok=True)
    sys.stderr.writelines(f"left out: {line}\n" for line in found.left_out)
    summary = summarize(found)
    drawn = {name: draw(summary, False) for name, draw in PLOTS.items()}
    files: dict[str, bytes | None] = {}
    for name, figure in drawn.items():
        for kind in ("png", "svg"):
            files[f"plots/{name}.{kind}"] = None if figure is None else render(figure, kind)
    made = [name for name, figure in drawn.items() if figure is not None]
    files["report.md"] = write_markdown(summary, made).encode(errors="replace")
    files["index.html"] = write_page(summary).encode(errors="replace")
    for name, content in files.items():
        _write(out / name, content)
    return out / "index.html"


def _write(path: Path, content: bytes | None) -> None:
    """Write a file, atomically; ``None`` takes away what a former report left."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _writing(path):
            if content is None:
                path.unlink(missing_ok=True)
            else:
                partial.write_bytes(content)
                os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        from anomalib_defect_plugins.core.errors import InvalidInputError

        msg = f"cannot write {path} ({error.strerror or error}); make room, or give another folder (--out)"
        raise InvalidInputError(msg) from error
