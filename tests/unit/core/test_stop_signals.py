"""SIGTERM and Ctrl-C become exceptions, once, wherever they arrive."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from anomalib_defect_plugins.core import stop_signals
from anomalib_defect_plugins.core.stop_signals import (
    Terminated,
    handle_sigterm,
    handle_stop_signals,
    keep_handler,
)


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Restore the handlers of this process."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    handlers = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_is_an_exception_and_a_second_one_does_not_disturb_the_clean_up(number, error):
    handle_stop_signals()
    with pytest.raises(error):
        signal.raise_signal(number)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)


def test_a_process_that_has_not_ended_is_stopped_again_by_a_later_signal(monkeypatch):
    monkeypatch.setattr(stop_signals, "PATIENCE_S", 0.0)
    handle_stop_signals()
    for _ in range(2):
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)


class Destroyed:
    """Receives SIGTERM in its destructor."""

    def __del__(self) -> None:
        """Send the signal, and continue."""
        signal.raise_signal(signal.SIGTERM)
        self.ended = True


def test_a_signal_that_arrives_in_a_destructor_is_not_lost():
    handle_stop_signals()
    with pytest.raises(Terminated):
        destroy_and_wait()


def destroy_and_wait() -> None:
    """Destroy an object, and wait to be interrupted."""
    Destroyed()
    time.sleep(20)


def program(end: str, start: str = "handle_stop_signals()") -> subprocess.CompletedProcess[str]:
    """Run a program that handles signals."""
    code = (
        "import os, signal, time\nfrom anomalib_defect_plugins.core.stop_signals import *\n"
        f"from anomalib_defect_plugins.core.stop_signals import handle_sigterm\n{start}\n{end}"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_a_program_ends_with_the_status_of_sigterm_and_one_line():
    ended = program("os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(20)", "handle_sigterm('stopped')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "stopped\n")


def test_a_further_rank_of_a_distributed_run_ends_silently(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    ended = program("os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(20)", "handle_sigterm('stopped')")
    assert (ended.returncode, ended.stderr) == (143, "")


def test_a_forked_child_ends_as_without_a_handler():
    end = "pid = os.fork()\nif not pid: time.sleep(20)\ntime.sleep(0.2); os.kill(pid, signal.SIGTERM)\n"
    ended = program(end + "print(os.WTERMSIG(os.waitpid(pid, 0)[1]))")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "15\n", "")


def test_a_handler_of_the_program_is_kept():
    def handler(*_: object) -> None:
        """Do nothing."""

    signal.signal(signal.SIGTERM, handler)
    handle_sigterm("stopped")
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_handler_is_restored_after_a_library_has_replaced_it():
    handle_stop_signals()
    handler = signal.getsignal(signal.SIGTERM)
    with keep_handler():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_other_threads_leave_the_handlers_as_they_are():
    thread = threading.Thread(target=lambda: (handle_stop_signals(), handle_sigterm("stopped")))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
