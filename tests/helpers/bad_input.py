"""What the campaigns of bad input share: the number of cases, one-line errors, and the report at the end.

``BAD_INPUT_PROFILE=campaign`` runs many cases instead of a few (``ci``). ``BAD_INPUT_PAGE`` is a Markdown file for the
number of cases.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fault_page import today, write_row
from hypothesis import HealthCheck, settings

from anomalib_defect_plugins.core.errors import error_line

PROFILES = {"ci": 1, "campaign": 20}

PROFILE = os.environ.get("BAD_INPUT_PROFILE", "ci")

CASES: Counter[str] = Counter()
"""Number of cases by subject."""


def cases(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run ``count`` fixed cases; in a campaign, many more and random ones."""
    return settings(
        max_examples=count * PROFILES[PROFILE],
        derandomize=PROFILE == "ci",
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def one_line(subject: str, *names: str) -> Iterator[None]:
    """Accept errors that the user sees as one line; any other error fails the test.

    Args:
        subject: Subject of the case, for the count.
        names: Texts that the line must contain.
    """
    CASES[subject] += 1
    try:
        yield
    except Exception as error:
        line = error_line(error)
        if line is None:
            raise
        assert len(line) > len("error: ") + 10
        assert all(name in line for name in names), line


@pytest.fixture(scope="module", autouse=True)
def count_cases() -> Iterator[None]:
    """Report the number of cases at the end."""
    yield
    summary = ", ".join(f"{count} {subject}" for subject, count in sorted(CASES.items()))
    print(f"\nbad input, profile {PROFILE}: {CASES.total()} cases: {summary}")
    if page := os.environ.get("BAD_INPUT_PAGE"):
        for subject, count in sorted(CASES.items()):
            write_row(Path(page), "cases", [subject, str(count), today()], ["input", "cases", "tried on"])
    CASES.clear()
