"""Converters without their output: progress, warnings and tracebacks of torch, OpenVINO and NNCF that mean nothing."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Keep what Python code prints, logs and warns of from the terminal until the block ends.

    Yields:
        What was printed.
    """
    output = io.StringIO()
    disabled = logging.root.manager.disable
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield output
        finally:
            logging.disable(disabled)
