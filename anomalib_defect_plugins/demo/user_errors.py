"""Show errors that the user can correct as one line on the page."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar, cast

import gradio as gr
from markupsafe import escape

from anomalib_defect_plugins.core.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")


def show_user_errors(listener: Callable[P, T]) -> Callable[P, T]:
    """Show a listener's user errors as a message on the page; other exceptions are raised unchanged."""
    if inspect.isgeneratorfunction(listener):
        return cast(Callable[P, T], _show_errors_of_generator(listener))

    @functools.wraps(listener)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return listener(*args, **kwargs)
        except UserError as error:
            raise gr.Error(one_line(error), print_exception=False) from error

    return wrapper


def _show_errors_of_generator(listener: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
    @functools.wraps(listener)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        try:
            yield from listener(*args, **kwargs)
        except UserError as error:
            raise gr.Error(one_line(error), print_exception=False) from error

    return wrapper


def render_user_errors(listener: Callable[P, str]) -> Callable[P, str]:
    """Render a listener's user errors instead of the HTML that it returns; other exceptions are raised unchanged."""

    @functools.wraps(listener)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return listener(*args, **kwargs)
        except UserError as error:
            return f'<p class="empty">{escape(one_line(error))}</p>'

    return wrapper


def one_line(error: UserError) -> str:
    """Return the message of an error with all white space collapsed."""
    return " ".join(str(error).split())
