"""The page of the demo with its tabs, and the server that shows it."""

import argparse
import atexit
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_limits import MAX_BYTES
from anomalib_defect_plugins.demo.components.listeners import UNQUEUED
from anomalib_defect_plugins.demo.resources import asset
from anomalib_defect_plugins.demo.server.request_guard import RequestGuard
from anomalib_defect_plugins.demo.server.session_cleanup import delete_state_on_unload
from anomalib_defect_plugins.demo.services.example_model import warm_up
from anomalib_defect_plugins.demo.services.results_store import ResultsStore
from anomalib_defect_plugins.demo.tabs import inspect, one_photo, results, synthesize, train
from anomalib_defect_plugins.demo.theme import HEAD, make_theme

TABS = {"Results": results, "Inspect": inspect, "Train": train, "One photo": one_photo, "Synthesise": synthesize}
"""Module of each tab."""

HEADER = """<h1>Surface defects</h1>
<p>Compare methods, inspect your own images, train on one photo, generate defects. No data leaves this server.</p>"""

MAX_QUEUE_SIZE = 64
"""Maximum number of waiting requests; further ones are refused."""

TEXTS = gr.I18n(
    en={
        "common.upload": "Upload",
        # The accessible name of these fields is "Click to upload or drop files".
        "upload_text.drop_file": "Click to upload",
        "upload_text.click_to_upload": "drop files",
    }
)
"""Texts that Gradio's own translations lack or that differ from accessible names."""

STORAGE_KEY = "anomalib-defects-user"
"""Name and encryption key of the token by which a browser finds its own work again."""

DELETE_CACHE = 600, 3600
"""Interval of the clean-up and maximum age of uploaded files, in seconds."""


def build(results: Path) -> gr.Blocks:
    """Build the page.

    Args:
        results: A results folder or a folder of results folders; it need not exist yet.
    """
    store = ResultsStore(results)
    page = gr.Blocks(title="Surface defects", analytics_enabled=False, delete_cache=DELETE_CACHE)
    with page:
        user = gr.BrowserState("", storage_key=STORAGE_KEY, secret=STORAGE_KEY)
        page.load(lambda token: token or secrets.token_hex(16), user, user, **UNQUEUED)
        gr.HTML(HEADER, elem_classes="demo-header", js_on_load=asset("upload_button.js"))
        # Without results, a new user starts with the example model.
        with gr.Tabs(selected="Results" if store.runs() else "Inspect"):
            for title, module in TABS.items():
                with gr.Tab(title, id=title) as tab:
                    module.add_tab(store, tab, user)
        delete_state_on_unload(page)
    return page


def launch(options: argparse.Namespace) -> int:
    """Serve the page until the program is stopped.

    Args:
        options: ``results``, ``host`` and ``port``; without a port, the first free one from 7860.

    Returns:
        Exit status.

    Raises:
        InvalidInputError: If the host or port cannot be used, or the results path is not a folder.
    """
    if options.results.exists() and not options.results.is_dir():
        msg = f"--results {options.results} is not a folder; pass one that 'anomalib-defects benchmark' wrote to"
        raise InvalidInputError(msg)
    _use_private_cache()
    threading.Thread(target=warm_up, daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, so that exit handlers run
    page = build(options.results).queue(default_concurrency_limit=4, max_size=MAX_QUEUE_SIZE)
    try:
        _, url, _ = page.launch(
            server_name=options.host,
            server_port=options.port,
            theme=make_theme(),
            i18n=TEXTS,
            head=HEAD,
            max_file_size=MAX_BYTES,
            app_kwargs={"middleware": [Middleware(RequestGuard)]},
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
        port = options.port or "any from 7860"
        msg = f"cannot listen on {options.host}, port {port}; choose others (--host, --port)"
        raise InvalidInputError(msg) from error
    sys.stdout.write(f"demo: {url} (Ctrl-C stops it)\n")
    sys.stdout.flush()
    page.block_thread()
    return 0


def _use_private_cache() -> None:
    """Store uploads in a temporary folder of this process, deleted at exit."""
    folder = tempfile.mkdtemp(prefix="anomalib-defects-demo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        os.environ[name] = folder
