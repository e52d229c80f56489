"""Memory that is freed between training steps is reused, and returned to the system in the end."""

import ctypes
import platform
import resource
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from anomalib_defect_plugins.core import freed_memory
from anomalib_defect_plugins.core.freed_memory import keep_freed_memory, return_freed_memory

PAGE = resource.getpagesize()
SIZE = 2**26
"""Bytes of a tensor, more than glibc keeps by default."""

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")


def fill(size: int = SIZE) -> None:
    torch.ones(size, dtype=torch.uint8)


def use_small_pages() -> None:
    """Count faults by pages of ``PAGE`` bytes, also where Linux makes huge pages by itself; see ``prctl(2)``."""
    pr_set_thp_disable = 41
    ctypes.CDLL(None).prctl(pr_set_thp_disable, 1, 0, 0, 0)


def in_new_process(check: Callable[[], None]) -> None:
    """Run ``check`` where no earlier test has left free blocks, which tensors may get whatever the thresholds are."""
    with get_context("spawn").Pool(1, initializer=use_small_pages) as pool:
        pool.apply(check)


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def reuse_pages() -> None:
    keep_freed_memory()
    for _ in range(10):  # the heap grows a few times where something small has taken the place of a tensor
        fill()
    before = page_faults()
    for _ in range(10):
        fill()
    assert page_faults() - before < 3 * SIZE / PAGE  # by default ten times SIZE / PAGE


@needs_glibc
def test_pages_of_freed_tensors_are_not_cleared_again():
    in_new_process(reuse_pages)


def return_pages() -> None:
    keep_freed_memory()
    fill()
    kept = resident_memory()
    return_freed_memory()
    assert resident_memory() < kept - SIZE / 2
    before = page_faults()
    for _ in range(10):
        fill(2 * SIZE)  # no free block within the heap is as large
    assert page_faults() - before > 9.9 * 2 * SIZE / PAGE  # memory that is freed later is returned, too


@needs_glibc
def test_memory_is_returned_to_the_system():
    in_new_process(return_pages)


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(freed_memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda _: pytest.fail("loads the C library"))
    keep_freed_memory()
    return_freed_memory()
