"""The demo as one page: its tabs, and the server that shows it."""

import argparse
import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.server.request_guard import Guard
from anomalib_defect_plugins.demo.server.session_cleanup import free_when_closed
from anomalib_defect_plugins.demo.services.results_store import Store
from anomalib_defect_plugins.demo.services.uploads import MOST_BYTES
from anomalib_defect_plugins.demo.tabs import inspect, one_photo, results, synthesize
from anomalib_defect_plugins.demo.theme import HEAD, make_theme

TABS = {"Results": results, "Inspect": inspect, "One photo": one_photo, "Synthesise": synthesize}
"""The module of each tab."""

ABOUT = """<h1>Surface defects</h1>
<p>Compare methods, inspect your own images, train from one photo, make defects. Nothing leaves this server.</p>"""

MOST_WAITING = 64
"""Requests that wait for their turn; more are refused."""

CACHE = 600, 3600
"""Every so many seconds, files that users sent and that are so many seconds old are deleted."""


def build(results: Path) -> gr.Blocks:
    """Make the page.

    Args:
        results: A results folder, or a folder of such; it need not exist yet.
    """
    store = Store(results)
    with gr.Blocks(title="Surface defects", analytics_enabled=False, delete_cache=CACHE) as page:
        gr.HTML(ABOUT, elem_classes="demo-head")
        with gr.Tabs():
            for title, tab in TABS.items():
                with gr.Tab(title) as it:
                    tab.add_tab(store, it)
        free_when_closed(page)
    return page


def launch(options: argparse.Namespace) -> int:
    """Show the page until the program is stopped.

    Args:
        options: ``results``, ``host`` and ``port``; without a port, the first free one from 7860 on.

    Returns:
        The exit status.

    Raises:
        InvalidInputError: The host or port cannot be had, or the results are no folder.
    """
    if options.results.exists() and not options.results.is_dir():
        msg = f"--results {options.results} is no folder; give one that 'anomalib-defects benchmark' wrote to"
        raise InvalidInputError(msg)
    _use_own_cache()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends as by Ctrl-C, and leaves nothing behind
    page = build(options.results).queue(default_concurrency_limit=4, max_size=MOST_WAITING)
    try:
        _, url, _ = page.launch(
            server_name=options.host,
            server_port=options.port,
            theme=make_theme(),
            head=HEAD,
            max_file_size=MOST_BYTES,
            app_kwargs={"middleware": [Middleware(Guard)]},
            share=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            show_error=True,
            quiet=True,
            inline=False,
            prevent_thread_lock=True,
        )
    except (OSError, OverflowError) as error:
        port = options.port or "any from 7860 on"
        msg = f"cannot listen on {options.host}, port {port}; give others (--host, --port)"
        raise InvalidInputError(msg) from error
    sys.stdout.write(f"demo: {url} (Ctrl-C stops it)\n")
    sys.stdout.flush()
    page.block_thread()
    return 0


def _use_own_cache() -> None:
    """Keep what users send in a folder of this process, which no other program writes to, and which goes with it."""
    folder = tempfile.mkdtemp(prefix="anomalib-defects-demo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        os.environ[name] = folder
