"""What went wrong, in one line on the page."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gradio as gr
from markupsafe import escape

from anomalib_defect_plugins.core.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")


def told(work: Callable[P, T]) -> Callable[P, T]:
    """Have a listener show errors that the user can mend on the page; others stay errors of the program."""

    @functools.wraps(work)
    def telling(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return work(*arguments, **named)
        except UserError as error:
            raise gr.Error(_line(error), print_exception=False) from error

    return telling


def written(work: Callable[P, str]) -> Callable[P, str]:
    """Have a listener that writes HTML write errors that the user can mend in its place."""

    @functools.wraps(work)
    def writing(*arguments: P.args, **named: P.kwargs) -> str:
        try:
            return work(*arguments, **named)
        except UserError as error:
            return f'<p class="empty">{escape(_line(error))}</p>'

    return writing


def _line(error: UserError) -> str:
    return " ".join(str(error).split())
