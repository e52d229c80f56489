"""Images of a user's parts become a folder that trains, or one line says why not."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from anomalib.data import AnomalibDataModule
from PIL import Image

pytest.importorskip("gradio", reason="gradio is not installed")

from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.demo.services.parts_folder import (
    PARTS,
    PartImages,
    PartsSummary,
    summarize_parts,
    write_parts,
)
from anomalib_defect_plugins.demo.services.parts_recipes import (
    best_recipe,
    budget_names,
    check_parts,
    configuration,
    recipe_names,
)
from anomalib_defect_plugins.demo.services.uploads import encode_png
from anomalib_defect_plugins.plugins.instantiate import build

RNG = np.random.default_rng(0)


def image(path: Path, value: int | None = None) -> str:
    """Write an image of noise, or a mask with a marked square."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(90, 160, (48, 64, 3), np.uint8)
    if value is not None:
        pixels = np.zeros((48, 64), np.uint8)
        pixels[10:20, 10:20] = value
    Image.fromarray(pixels).save(path)
    return str(path)


@pytest.fixture
def uploads(tmp_path: Path) -> PartImages:
    """Six good and three defective images, one with an uploaded and one with a painted mask."""
    folder = tmp_path / "uploads"
    good = [image(folder / f"g{number}.png") for number in range(6)]
    bad = [image(folder / f"b{number}.png") for number in range(3)]
    mask = np.zeros((48, 64), np.uint8)
    mask[5:9, 5:9] = 255
    return PartImages(good, bad, [image(folder / "masks/b0.png", 255)], {bad[1]: encode_png(mask)})


def pack(path: Path, folder: Path, top: str = "") -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, top + file.relative_to(folder).as_posix())
    return str(path)


def test_uploaded_and_painted_masks_belong_to_their_images(tmp_path: Path, uploads: PartImages) -> None:
    folder = write_parts(tmp_path / "results", "mine", uploads)
    assert folder == tmp_path / "results" / PARTS / "mine"
    assert summarize_parts(folder) == PartsSummary(good=6, bad=3, marked=2)


@pytest.mark.parametrize("top", ["", "plates/", "a/b/"])
def test_a_packed_folder_is_read_with_and_without_a_folder_at_its_top(tmp_path: Path, top: str) -> None:
    for number in range(5):
        image(tmp_path / f"plates/good/{number}.png")
    image(tmp_path / "plates/scratch/9.png")
    image(tmp_path / "plates/masks/scratch/9.png", 255)
    (tmp_path / "plates/notes.txt").write_text("left out")
    archive = pack(tmp_path / "plates.zip", tmp_path / "plates", top)
    folder = write_parts(tmp_path / "results", "mine", PartImages(archive=archive))
    assert summarize_parts(folder) == PartsSummary(good=5, bad=1, marked=1)
    assert not list(folder.rglob("*.txt"))


def test_a_packed_folder_of_good_parts_only_is_read(tmp_path: Path) -> None:
    for number in range(5):
        image(tmp_path / f"plates/good/{number}.png")
    archive = pack(tmp_path / "plates.zip", tmp_path / "plates", "plates/")
    folder = write_parts(tmp_path / "results", "mine", PartImages(archive=archive))
    assert summarize_parts(folder) == PartsSummary(good=5, bad=0, marked=0)


def test_a_packed_file_outside_its_folder_is_refused(tmp_path: Path) -> None:
    source = image(tmp_path / "plate.png")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.write(source, "good/../../../evil.png")
    with pytest.raises(InvalidInputError, match="outside its folder"):
        write_parts(tmp_path / "results", "mine", PartImages(archive=str(tmp_path / "evil.zip")))
    assert not list(tmp_path.rglob("evil.png"))


def test_a_file_that_is_not_packed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("no")
    with pytest.raises(InvalidInputError, match="cannot be unpacked"):
        write_parts(tmp_path / "results", "mine", PartImages(archive=str(tmp_path / "x.zip")))


@pytest.mark.parametrize(("name", "message"), [("../x", "cannot be the name"), (None, "cannot"), ("mine", "already")])
def test_invalid_and_taken_names_are_refused(
    tmp_path: Path, uploads: PartImages, name: str | None, message: str
) -> None:
    (tmp_path / "results/mine").mkdir(parents=True)
    with pytest.raises(InvalidInputError, match=message):
        write_parts(tmp_path / "results", name, uploads)


def test_nothing_is_left_of_images_that_cannot_be_used(tmp_path: Path, uploads: PartImages) -> None:
    for images in (PartImages(), PartImages(uploads.good, uploads.bad, [image(tmp_path / "unknown.png", 255)])):
        with pytest.raises(UserError):
            write_parts(tmp_path / "results", "mine", images)
        assert not (tmp_path / "results" / PARTS / "mine").exists()


def test_the_best_recipe_uses_all_that_there_is() -> None:
    parts = [PartsSummary(9, 0, 0), PartsSummary(9, 3, 0), PartsSummary(9, 3, 2)]
    assert [best_recipe(each) for each in parts] == recipe_names()
    for recipe, enough in zip(recipe_names(), parts, strict=True):
        check_parts(recipe, enough)
    for recipe, too_little in zip(recipe_names()[1:], parts[:2], strict=True):
        with pytest.raises(InvalidInputError, match="are needed for"):
            check_parts(recipe, too_little)
    with pytest.raises(InvalidInputError, match="2 good parts; 5 are needed"):
        check_parts(recipe_names()[0], PartsSummary(2, 0, 0))


def test_every_recipe_and_time_is_a_benchmark_of_one_run(tmp_path: Path) -> None:
    image(tmp_path / "data/good/1.png")
    for recipe in recipe_names():
        for budget in budget_names():
            (tmp_path / "x.yaml").write_text(configuration("mine", tmp_path / "data", recipe, budget))
            (run,) = read_benchmark(tmp_path / "x.yaml").runs
            assert run.model.name == "mine"
            # Images of 64x48 pixels have the area of a square of 55, at least 64: 55x74, in multiples of 16.
            assert run.model.init_args["image_size"] == [48, 80]
    with pytest.raises(InvalidInputError, match="time is"):
        configuration("mine", tmp_path / "data", recipe_names()[0], "an hour")


@pytest.mark.parametrize(("good", "marked", "is_split"), [(9, 4, True), (60, 10, True), (8, 4, False), (9, 3, False)])
def test_the_threshold_of_marked_defects_comes_from_other_images_than_those_of_the_test(
    tmp_path: Path, good: int, marked: int, is_split: bool
) -> None:
    images = [image(tmp_path / f"good{number}.png") for number in range(good)]
    defects = [image(tmp_path / f"bad{number}.png") for number in range(marked)]
    masks = [image(tmp_path / f"masks/bad{number}.png", 255) for number in range(marked)]
    folder = write_parts(tmp_path / "results", "mine", PartImages(images, defects, masks))
    (tmp_path / "x.yaml").write_text(configuration("mine", folder, recipe_names()[2], budget_names()[0]))
    (run,) = read_benchmark(tmp_path / "x.yaml").runs
    data = build(AnomalibDataModule, run.datamodule, "the data")  # type: ignore[type-abstract]
    data.setup()
    val, test = (set(split.samples.image_path) for split in (data.val_data, data.test_data))
    assert (val != test) == is_split
    if is_split:
        assert not val & test
        for split in (data.train_data, data.val_data, data.test_data):
            assert set(split.samples.label_index) == {0, 1}
