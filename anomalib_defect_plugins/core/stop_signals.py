"""Ends the process on SIGTERM, and on Ctrl-C, by an exception: files are complete, and child processes end with it.

Python's default is to end at once on SIGTERM, which leaves temporary files and children behind. Lightning's trainer
waits for the end of an epoch, and ignores the signal in tests.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""Conventional exit status of a program that SIGTERM has stopped."""

INTERRUPTED = 128 + signal.SIGINT
"""Conventional exit status of a program that Ctrl-C has stopped."""

PATIENCE_S = 10.0
"""Time for cleaning up, in which further signals are ignored."""

RETRY_S = 0.05
"""Delay of a signal that arrives in a destructor, where Python drops exceptions."""


class Terminated(SystemExit):
    """The process was told to end by SIGTERM. Without a handler it ends quietly, with the status 143."""

    def __init__(self) -> None:
        super().__init__(int(TERMINATED))


class StopSignals:
    """Signal handler that raises :class:`Terminated` on SIGTERM and ``KeyboardInterrupt`` on Ctrl-C.

    Args:
        message: Line for standard error on SIGTERM; ``None`` if whoever catches the exception prints one.
    """

    def __init__(self, message: str | None = None) -> None:
        self.message = message
        self._process = os.getpid()
        self._since: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal.

        Raises:
            Terminated: If it is SIGTERM.
            KeyboardInterrupt: If it is Ctrl-C.
        """
        if os.getpid() != self._process:  # a forked child has inherited the handler
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif _is_in_destructor(frame):
            main = threading.main_thread().ident
            retry = threading.Timer(RETRY_S, signal.pthread_kill, (main, number))  # wakes it up
            retry.daemon = True
            retry.start()
        elif self._since is None or time.monotonic() - self._since > PATIENCE_S:
            self._since = time.monotonic()
            self._stop(number)

    def _stop(self, number: int) -> None:
        # Python restores the default handlers when it shuts down.
        atexit.register(signal.signal, number, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        # torch would report loader workers that the same signal has reached as failures.
        if sys.platform != "win32":
            signal.signal(signal.SIGCHLD, _ignore)
        if self.message is not None:
            os.write(2, f"{self.message}\n".encode())  # the signal may have interrupted a print
        raise Terminated


def _is_in_destructor(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def handle_stop_signals() -> None:
    """Raise :class:`Terminated` on SIGTERM and ``KeyboardInterrupt`` on Ctrl-C, in the main thread of a program."""
    if _is_main_thread():
        handler = StopSignals()
        signal.signal(signal.SIGTERM, handler)
        signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def keep_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM after a library has replaced it."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if _is_main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def handle_sigterm(message: str) -> None:
    """Raise :class:`Terminated` on SIGTERM, unless the program handles it, or this is not its main thread.

    Args:
        message: Line for standard error.
    """
    if _is_main_thread() and sys.platform != "win32" and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        is_first = os.environ.get("LOCAL_RANK", "0") == "0"
        signal.signal(signal.SIGTERM, StopSignals(message if is_first else None))


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing; Python warns of a pending signal that ``SIG_IGN`` or ``SIG_DFL`` would drop."""
