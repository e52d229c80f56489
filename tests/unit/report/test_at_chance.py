"""The mark of runs whose ranking is not better than a random one."""

from types import SimpleNamespace
from typing import Any

import pytest

from anomalib_defect_plugins.report.statistics import MeanSpread
from anomalib_defect_plugins.report.tables import is_at_chance


def row(auroc: float | None, images: int | None) -> Any:
    value = None if auroc is None else MeanSpread(auroc, None, 1)
    return SimpleNamespace(metric=lambda _: value, records=[SimpleNamespace(split={"test": images})])


@pytest.mark.parametrize(
    ("auroc", "images", "expected"),
    [
        # 90 images: the limit is 0.5 + 1.645 sqrt(91 / 24300) = 0.6007
        (0.44, 90, True),
        (0.52, 90, True),
        (0.60, 90, True),
        (0.61, 90, False),
        # 900 images: 0.5 + 1.645 sqrt(901 / 2430000) = 0.5317
        (0.53, 900, True),
        (0.54, 900, False),
        (None, 90, False),
        (0.5, None, False),
        (0.0, 90, False),  # what anomalib returns without defective images
    ],
)
def test_an_auroc_that_a_random_ranking_reaches_is_at_chance(
    auroc: float | None, images: int | None, expected: bool
) -> None:
    assert is_at_chance(row(auroc, images)) == expected
