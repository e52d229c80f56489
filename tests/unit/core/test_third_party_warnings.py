"""Warnings of other packages are ignored in the commands only."""

import warnings

import pytest

from anomalib_defect_plugins.core import third_party_warnings

KNOWN = "Importing from timm.models.layers is deprecated, please import via timm.layers"


@pytest.mark.parametrize(("program", "shown"), [("/bin/anomalib", []), ("script.py", [KNOWN])])
def test_known_warnings_are_ignored_in_the_commands_only(monkeypatch, program, shown):
    monkeypatch.setattr(third_party_warnings.sys, "argv", [program, "train"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        third_party_warnings.silence()
        warnings.warn(KNOWN, FutureWarning, stacklevel=1)
        warnings.warn("another one", FutureWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == [*shown, "another one"]
