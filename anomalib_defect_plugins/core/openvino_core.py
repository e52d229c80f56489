"""OpenVINO's core, of which a process has one, because several may end it.

The CPU plugin of a core gives the thread that loads it an alternate signal stack, and unmaps it when the core is
destroyed. Unless cores are destroyed in the reverse order and by the thread that loaded them, a thread keeps a stack
that no longer exists, and its next signal with a handler of Python ends the process with SIGSEGV: Ctrl-C, or the end of
a DataLoader's worker.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino


@cache
def openvino_core() -> "openvino.Core":
    """Return the core of this process, which is never destroyed."""
    import openvino

    return openvino.Core()


@contextmanager
def signal_stack_restored() -> Iterator[None]:
    """Restore the alternate signal stack of the thread at the end, for libraries that create cores of their own."""
    if not sys.platform.startswith("linux"):
        yield
        return
    library = ctypes.CDLL(None)
    stack = _SignalStack()
    library.sigaltstack(None, ctypes.byref(stack))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(stack), None)


class _SignalStack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))
