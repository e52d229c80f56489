"""Examples of a report: which images are shown, with their maps, masks and colours."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from results_folder import make_content, make_run, write_run, write_table

from anomalib_defect_plugins.report.examples import select_examples
from anomalib_defect_plugins.report.images import overlay
from anomalib_defect_plugins.results.reader import read_results
from anomalib_defect_plugins.results.record import RunRecord


def write_images(folder: Path, rows: Sequence[tuple[int, float]], threshold: float | None = 5.0) -> None:
    folder.mkdir()
    for name in ("maps", "masks"):
        (folder / name).mkdir()
    for number, (label, _) in enumerate(rows):
        Image.new("L", (8, 4), 100).save(folder / f"{number}.png")
        Image.new("L", (8, 4), 50).save(folder / "maps" / f"{number:05}.png")
        if label:
            Image.new("L", (8, 4), 255).save(folder / "masks" / f"{number:05}.png")
    columns = [
        {"image_path": folder / f"{index}.png", "label": label, "defect_type": "crack" if label else "", "score": score,
         "width": 8, "height": 4, "map": f"{index:05}.png"}
        for index, (label, score) in enumerate(rows)
    ]  # fmt: skip
    write_table(folder / "images.csv", columns)
    write_run(folder, make_content(make_run(), {}, thresholds={"image": threshold, "pixel": None}))


def record_of(tmp_path: Path, rows: Sequence[tuple[int, float]], threshold: float | None = 5.0) -> RunRecord:
    write_images(tmp_path / "run", rows, threshold)
    (tmp_path / "runs").mkdir()
    (tmp_path / "run").rename(tmp_path / "runs" / "key")
    return read_results(tmp_path).done[0]


def test_examples_are_chosen_by_the_margin_to_the_threshold(tmp_path: Path) -> None:
    # Margins of the defective ones: 4, -1, 1, 2, 3; of the normal ones: 4, -2, 3.
    rows = [(1, 9.0), (1, 4.0), (1, 6.0), (0, 1.0), (1, 7.0), (0, 7.0), (1, 8.0), (0, 2.0)]
    examples = {example.rank: (example.name, example.about) for example in select_examples(record_of(tmp_path, rows))}
    assert {rank: name.rpartition("/")[2] for rank, (name, _) in examples.items()} == {
        "best": "0.png",
        "median": "4.png",
        "worst": "1.png",
        "worst normal": "5.png",
    }
    assert examples["worst"][1] == "defective (crack), score 4.00, below the threshold 5.00: wrong"
    assert examples["worst normal"][1] == "normal, score 7.00, at or above the threshold 5.00: wrong"


def test_an_example_of_a_run_without_threshold_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    examples = select_examples(record_of(tmp_path, [(1, 9.0), (0, 4.0)], None))
    assert [example.about for example in examples] == ["defective (crack), score 9.00, no threshold",
                                                       "normal, score 4.00, no threshold"]  # fmt: skip


def test_an_image_whose_score_is_the_threshold_is_right(tmp_path: Path) -> None:
    examples = select_examples(record_of(tmp_path, [(1, 5.0)]))
    assert [example.about for example in examples] == [
        "defective (crack), score 5.00, at or above the threshold 5.00: right"
    ]


def test_each_image_is_an_example_once(tmp_path: Path) -> None:
    examples = select_examples(record_of(tmp_path, [(1, 9.0), (1, 4.0)]))
    assert [(example.rank, example.name.rpartition("/")[2]) for example in examples] == [
        ("best", "0.png"),
        ("worst", "1.png"),
    ]


def test_without_the_image_map_and_ground_truth_are_shown(tmp_path: Path) -> None:
    record = record_of(tmp_path, [(1, 9.0)])  # its folder was moved, so the paths of the images do not exist
    (example,) = select_examples(record)
    image, truth, heat, found = example.pictures
    assert (found.uri, found.alt) == (None, "not kept: no threshold, or an older run")
    assert (image.uri, image.alt) == (None, "not readable")
    assert truth.uri is not None
    assert truth.uri.startswith("data:image/png")
    assert heat.uri is not None
    assert heat.uri.startswith("data:image/jpeg")
    assert example.proportions == 2


@pytest.mark.parametrize("text", ["", "image_path,label\n", "\x00", "image_path,label,score,map\na,b,c,d\n"])
def test_with_a_broken_table_of_images_only_the_examples_are_missing(tmp_path: Path, text: str) -> None:
    record = record_of(tmp_path, [(1, 9.0)])
    (record.folder / "images.csv").write_text(text)
    assert select_examples(record) == []


def test_the_map_covers_the_image_where_it_is_high() -> None:
    image = Image.new("RGB", (2, 1), (100, 100, 100))
    heat = Image.fromarray(np.array([[0, 255]], np.uint8))
    low, high = np.asarray(overlay(image, heat, (2, 1)))[0].astype(int)
    assert low.tolist() == [100, 100, 100]
    # The brightest colour of inferno is (252, 255, 164) (van der Walt and Smith); 80 % of it, and 20 % of 100.
    assert high == pytest.approx([221.6, 224, 151.2], abs=1)


def test_the_threshold_has_the_middle_of_the_colours_wherever_it_is() -> None:
    heat = Image.fromarray(np.array([[0, 51, 255]], np.uint8))
    middle, highest = (np.array(mpl.colormaps["inferno"](place)[:3]) * 255 for place in (0.5, 1.0))
    colours = np.asarray(overlay(None, heat, (3, 1), threshold=0.2))[0]
    assert colours[1] == pytest.approx(middle, abs=2)
    assert colours[2] == pytest.approx(highest, abs=2)
    # Beyond the maps: all pixels are on the same side.
    assert np.asarray(overlay(None, heat, (3, 1), threshold=1.5))[0, :, 0].max() < middle[0]
    assert np.asarray(overlay(None, heat, (3, 1), threshold=-0.5))[0, :, 0].min() > middle[0]


def test_an_example_shows_the_mask_that_the_run_predicted(tmp_path: Path) -> None:
    record = record_of(tmp_path, [(1, 9.0)])
    (record.folder / "pred_masks").mkdir()
    Image.new("L", (8, 4), 255).save(record.folder / "pred_masks" / "00000.png")
    found = select_examples(record)[0].pictures[3]
    assert found.caption == "predicted mask"
    assert found.uri is not None
