"""The tab that makes defects, in a real browser: painted, made, saved, downloaded, and read as a data set."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_server import LOOKS, open_tab, opened, paint

from anomalib_defect_plugins.data import DefectFolder

pytestmark = pytest.mark.slow

PAINTED = """() => {
    const it = document.querySelector("#painted canvas");
    const { data } = it.getContext("2d").getImageData(0, 0, it.width, it.height);
    return data.filter((value, at) => at % 4 === 3 && value > 127).length;
}"""
"""Counts the pixels that are painted."""


@pytest.fixture
def page(browser: Any, demo: Any) -> Iterator[Any]:
    """The tab with an image to paint on; it must have stayed quiet."""
    with opened(browser, demo.url) as (page, said):
        open_tab(page, "Synthesise")
        page.locator(".tabitem:visible input[type=file]").first.set_input_files(demo.folder / "surface.png")
        page.locator("#painted canvas").wait_for()
        yield page
        assert said == []


def make(page: Any, category: str, count: int) -> None:
    before = page.locator("#made li").count()
    page.get_by_label("Category of the defects").click()
    page.get_by_role("option", name=category, exact=True).click()
    page.get_by_label("number input for Images to make").fill(str(count))
    page.get_by_role("button", name="Make defects").click()
    page.locator(f"#made li:nth-child({before + count})").wait_for()


def test_defects_are_made_where_it_is_painted_and_saved_as_a_data_set(page: Any, demo: Any, tmp_path: Path):
    paint(page)
    make(page, "hole", 2)
    make(page, "scratch", 1)
    assert "3 images made" in page.locator("#made").inner_text()
    page.get_by_label("Name of the folder").fill("mine")
    page.get_by_role("button", name="Save as a folder").click()
    page.locator("#saved", has_text="results/synthetic/mine").wait_for()
    with page.expect_download() as download:
        page.get_by_text("Download as ZIP").click()
    assert download.value.suggested_filename == "mine.zip"
    download.value.save_as(tmp_path / "mine.zip")
    with zipfile.ZipFile(tmp_path / "mine.zip") as archive:
        archive.extractall(tmp_path)
    for folder in (tmp_path / "mine", demo.results / "synthetic/mine"):
        data = DefectFolder(folder, num_workers=0)
        data.setup()
        assert sorted(data.test_data.samples.defect_type) == ["hole", "hole", "scratch"]
        masks = np.stack([np.asarray(data.test_data[index].gt_mask) for index in range(3)])
        assert masks.shape == (3, 300, 400)
        assert masks.any((1, 2)).all()
        # The stroke is in the middle; nothing is far from it.
        assert not masks[:, :75].any()
        assert not masks[:, :, :100].any()
    page.get_by_role("button", name="Save as a folder").click()
    page.locator(".toast-body", has_text="there is a folder mine already").wait_for()


def test_a_name_that_leads_elsewhere_is_refused_in_one_line(page: Any, demo: Any):
    paint(page)
    make(page, "stain", 1)
    page.get_by_label("Name of the folder").fill("../../elsewhere")
    page.get_by_role("button", name="Save as a folder").click()
    page.locator(".toast-body", has_text="cannot be the name of the folder").wait_for()
    assert not list(demo.folder.rglob("elsewhere*"))


def test_paint_is_erased_cleared_put_everywhere_and_gone_with_its_image(page: Any):
    paint(page)
    assert 0 < page.evaluate(PAINTED) < 300 * 400 / 10
    page.get_by_label("Erase").check()
    paint(page)
    assert page.evaluate(PAINTED) == 0
    for button, pixels in (("Paint everything", 300 * 400), ("Clear", 0), ("Paint everything", 300 * 400)):
        page.locator("#painted").get_by_role("button", name=button).click()
        assert page.evaluate(PAINTED) == pixels
    page.get_by_role("button", name="Take an example").click()  # of another size
    page.locator("#painted canvas[width='128']").wait_for()
    assert page.evaluate(PAINTED) == 0
    page.get_by_role("button", name="Make defects").click()
    page.locator(".toast-body", has_text="nothing is painted yet").wait_for()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_tab_fits(browser: Any, demo: Any, width: int, scheme: str):
    with opened(browser, demo.url, width, scheme) as (page, said):
        open_tab(page, "Synthesise")
        page.get_by_role("button", name="Take an example").click()
        page.locator("#painted canvas").wait_for()
        page.get_by_role("button", name="Paint everything").click()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.get_by_role("button", name="Make defects").click()
        page.locator("#made li:nth-child(4)").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert said == []
