"""Memory that is freed between training steps is reused, and returned to the system in the end."""

import platform
import resource
from pathlib import Path

import pytest
import torch

from anomalib_defect_plugins.core import freed_memory
from anomalib_defect_plugins.core.freed_memory import keep_freed_memory, return_freed_memory

PAGE = resource.getpagesize()
SIZE = 2**26
"""Bytes of a tensor, more than glibc keeps by default."""

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")


def fill() -> None:
    torch.ones(SIZE, dtype=torch.uint8)


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@needs_glibc
def test_pages_of_freed_tensors_are_not_cleared_again():
    keep_freed_memory()
    for _ in range(10):  # the heap grows a few times where something small has taken the place of a tensor
        fill()
    before = page_faults()
    for _ in range(10):
        fill()
    assert page_faults() - before < 3 * SIZE / PAGE  # by default ten times SIZE / PAGE


@needs_glibc
def test_memory_is_returned_to_the_system():
    keep_freed_memory()
    fill()
    kept = resident_memory()
    return_freed_memory()
    assert resident_memory() < kept - SIZE / 2
    before = page_faults()
    fill()
    fill()
    assert page_faults() - before > 1.9 * SIZE / PAGE  # memory that is freed later is returned, too


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(freed_memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda _: pytest.fail("loads the C library"))
    keep_freed_memory()
    return_freed_memory()
