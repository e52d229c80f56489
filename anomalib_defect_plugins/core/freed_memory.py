"""Freed memory of the C library, which is reused, not returned to the system, while a model runs on a CPU.

The feature maps of a batch have tens of megabytes each. By default glibc returns them to the system as soon as they are
freed, and the system clears every page again before the next step gets it: up to half of the time of a training step.
"""

import ctypes
import platform

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
"""Parameters of ``mallopt``, see ``malloc.h``."""

LARGEST_KEPT = 2**30
"""Size in bytes up to which freed blocks are kept."""

USUAL_LARGEST = 2**25
USUAL_TRIM = 2 * USUAL_LARGEST
"""The highest thresholds that glibc chooses by itself, in bytes."""


def keep_freed_memory() -> None:
    """Let freed memory be reused by this process until :func:`return_freed_memory`; without glibc, do nothing."""
    if _has_glibc():
        _set_thresholds(LARGEST_KEPT, 2**31 - 1)


def return_freed_memory() -> None:
    """Return what has been freed to the system, as from now on; without glibc, do nothing."""
    if _has_glibc():
        _set_thresholds(USUAL_LARGEST, USUAL_TRIM)
        ctypes.CDLL(None).malloc_trim(0)


def _set_thresholds(largest: int, trim: int) -> None:
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_THRESHOLD, largest)
    library.mallopt(M_TRIM_THRESHOLD, trim)


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
