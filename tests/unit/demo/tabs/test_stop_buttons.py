"""A stopped training is shown as such by the timer alone: answers of two listeners may arrive out of order."""

from pathlib import Path

import gradio as gr
import pytest

from anomalib_defect_plugins.demo.app import build


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> gr.Blocks:
    root: Path = tmp_path_factory.mktemp("results")
    return build(root)


def test_stop_buttons_show_nothing_themselves(page: gr.Blocks) -> None:
    stops = [block._id for block in page.blocks.values() if isinstance(block, gr.Button) and block.value == "Stop"]
    listeners = [fn for fn in page.fns.values() if any(target[0] in stops for target in fn.targets)]
    assert len(stops) == len(listeners) == 3
    assert all(not listener.outputs for listener in listeners)
