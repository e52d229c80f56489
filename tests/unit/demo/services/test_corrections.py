"""The log of corrections: lines are only added, the last one of an image counts, and the export can be trained on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="gradio is not installed")

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.services.corrections import LOG, CorrectionLog
from anomalib_defect_plugins.demo.services.parts_folder import PartsSummary, summarize_parts
from anomalib_defect_plugins.demo.services.uploads import encode_png

MASK = np.zeros((40, 40), np.uint8)
MASK[5:9, 5:9] = 255


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return paths


def test_the_last_line_of_an_image_counts_and_no_line_is_lost(tmp_path: Path, images: list[Path]) -> None:
    log = CorrectionLog(tmp_path)
    log.add(images[0], "bad", mask=encode_png(MASK), model="m", score=0.7, threshold=0.5, user="ada")
    log.add(images[0], "bad")  # keeps the painted defect
    log.add(images[1], "bad")
    log.add(images[1], "good")
    assert len(list(log.lines())) == 4
    first, second = log.latest().values()
    assert first.mask
    assert (first.label, second.label) == ("bad", "good")


def test_the_export_is_a_folder_to_train_on(tmp_path: Path, images: list[Path]) -> None:
    log = CorrectionLog(tmp_path)
    for path, label, mask in zip(images, ("good", "good", "bad", "bad"), (None, None, None, MASK), strict=True):
        log.add(path, label, mask=None if mask is None else encode_png(mask))
    assert summarize_parts(log.export(tmp_path / "export")) == PartsSummary(good=2, bad=2, marked=1)


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path: Path, images: list[Path]) -> None:
    log = CorrectionLog(tmp_path)
    log.add(images[0], "good")
    with (log.folder / LOG).open("a") as file:
        file.write('{"digest": "12')
    log.add(images[1], "bad")
    assert [line.label for line in log.lines()] == ["good", "bad"]


def test_faults_are_one_line(tmp_path: Path, images: list[Path]) -> None:
    log = CorrectionLog(tmp_path)
    with pytest.raises(InvalidInputError, match="no corrections yet"):
        log.export(tmp_path / "export")
    with pytest.raises(InvalidInputError, match="label is 'ugly'"):
        log.add(images[0], "ugly")
    with pytest.raises(InvalidInputError, match="cannot keep the correction"):
        log.add(tmp_path / "deleted.png", "good")
