"""Report of a results folder: Markdown, one HTML page, and plots."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import write_bytes
from anomalib_defect_plugins.report.html import write_page
from anomalib_defect_plugins.report.markdown import write_markdown
from anomalib_defect_plugins.report.plots import PLOTS, render
from anomalib_defect_plugins.report.summary import summarize
from anomalib_defect_plugins.results.reader import read_results

FOLDER = "report"
"""Default folder of the report, in the results folder."""


def write_report(results: Path, out: Path | None = None) -> Path:
    """Write ``report.md``, ``index.html`` and ``plots/`` of a results folder, each file atomically.

    Unreadable runs are listed in the report, and on standard error, one per line.

    Args:
        results: Folder that ``anomalib-defects benchmark`` has written to.
        out: Folder to write to; ``report`` in the results folder by default. An earlier report is replaced.

    Returns:
        Path of the page.

    Raises:
        MissingDataError: If the results folder does not exist.
        InvalidInputError: If it has no runs, or ``out`` is not writable.
    """
    content = read_results(results)
    out = results / FOLDER if out is None else out
    with _writing(out):  # fails before time is spent on plots
        (out / "plots").mkdir(parents=True, exist_ok=True)
    sys.stderr.writelines(f"left out: {line}\n" for line in content.left_out)
    summary = summarize(content)
    drawings = {name: draw(summary, False) for name, draw in PLOTS.items()}
    files: dict[str, bytes | None] = {}
    for name, drawing in drawings.items():
        for kind in ("png", "svg"):
            files[f"plots/{name}.{kind}"] = None if drawing is None else render(drawing, kind)
    plots = [name for name, drawing in drawings.items() if drawing is not None]
    files["report.md"] = write_markdown(summary, plots).encode(errors="replace")
    files["index.html"] = write_page(summary).encode(errors="replace")
    for name, file in files.items():
        _write(out / name, file)
    return out / "index.html"


def _write(path: Path, content: bytes | None) -> None:
    """Write a file, or remove that of an earlier report if there is no content."""
    with _writing(path):
        if content is None:
            path.unlink(missing_ok=True)
        else:
            write_bytes(path, content)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"cannot write {path} ({error.strerror or error}); free space, or choose another folder (--out)"
        raise InvalidInputError(msg) from error
