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


def of_batch(network: "openvino.Model", batch: int) -> "openvino.Model":
    """Return a graph for a known number of images, or the graph itself if it has one or cannot have one.

    8-bit graphs need it. If the number of images is unknown, OpenVINO 2026.4 applies the scales of 8-bit convolutions
    before a group norm more than once, and all images get about the same map.
    """
    shape = network.inputs[0].partial_shape
    if shape[0].is_static:
        return network
    fixed = network.clone()
    shape[0] = batch
    try:
        fixed.reshape({0: shape})
    except RuntimeError:
        return network
    return fixed


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
