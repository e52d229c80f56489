"""The table of operating points: errors of each row at its threshold, the images behind them, and its origin."""

import pandas as pd

from anomalib_defect_plugins.core.operating_points import Rate, clopper_pearson, widened
from anomalib_defect_plugins.report.labels import MISSING
from anomalib_defect_plugins.report.summary import Summary, SummaryRow
from anomalib_defect_plugins.report.tables import LABELS, Cell, Table, count_cell, group_breaks, label_cells, text_cell
from anomalib_defect_plugins.report.tested_images import SAW_TEST_LABELS, labelled_images, threshold_origin

TITLE = "Operating points of the first seed (‡: the threshold was chosen on the labels of the test images)"


def operating_table(summary: Summary) -> Table | None:
    """Build the table: a row for each row of the summary whose first run has labels for its images."""
    rows = [(row, read) for row in summary.rows if (read := labelled_images(row.records[0])) is not None]
    columns = [*LABELS, "good", "defective", "misses, %", "false alarms, %", "recall by type", "threshold from"]
    cells = [_cells(row, images) for row, images in rows]
    return Table(TITLE, columns, cells, group_breaks([row.group for row, _ in rows])) if rows else None


def _cells(row: SummaryRow, images: pd.DataFrame) -> list[Cell]:
    bad, origin = int(images.label.sum()), threshold_origin(row.records[0])
    rates = [(int(images.missed.sum()), bad), (int(images.false_alarm.sum()), len(images) - bad)]
    shown = [_rate_cell(count, total, origin == SAW_TEST_LABELS) for count, total in rates]
    counts = [count_cell(len(images) - bad), count_cell(bad)]
    return [*label_cells(row), *counts, *shown, text_cell(_recall_by_type(images)), text_cell(origin)]


def _rate_cell(count: int, total: int, chosen_here: bool) -> Cell:
    if not total:
        return Cell(MISSING, numeric=True)
    exact = clopper_pearson(count, total)
    rate: Rate = widened(exact) if chosen_here else exact
    return Cell(f"{100 * rate.value:.1f} ({100 * rate.low:.1f} to {100 * rate.high:.1f})", rate.value, numeric=True)


def _recall_by_type(images: pd.DataFrame) -> str:
    """Format the recall of each type of defect, as numbers of images."""
    defects = images[images.label]
    if "defect_type" not in defects or defects.defect_type.nunique() < 2:
        return MISSING
    found = (~defects.missed).groupby(defects.defect_type).agg(["sum", "size"])
    return ", ".join(f"{name} {int(row['sum'])}/{int(row['size'])}" for name, row in found.iterrows())
