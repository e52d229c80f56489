"""Retraining: which images are merged, and which candidate is promoted."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_defect_plugins.benchmark import retraining
from anomalib_defect_plugins.benchmark.retraining import FrozenErrors, find_run, merge, retrain
from anomalib_defect_plugins.cli import main
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError


def image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Data with a good image 1 and a scratched one 2; corrections that call 1 defective, with a mask, and add 3."""
    data, corrections = tmp_path / "data", tmp_path / "corrections"
    image(data / "good/1.png", 1)
    image(data / "scratch/2.png", 2)
    image(data / "masks/scratch/2_mask.png", 12)
    image(data / "masks/scratch/22.png", 13)
    image(corrections / "defect/a.png", 1)
    image(corrections / "masks/defect/a.png", 11)
    image(corrections / "good/b.png", 3)
    return data, corrections


def test_corrections_have_the_last_word_on_an_image(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    assert merge(folders, tmp_path / "merged", set()) == 0
    assert names(tmp_path / "merged") == [
        "defect/a.png",
        "good/b.png",
        "masks/defect/a.png",
        "masks/scratch/2_mask.png",
        "scratch/2.png",
    ]


def test_images_of_the_frozen_set_are_not_trained_on(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    frozen = {retraining._digest(folders[1] / "good/b.png")}
    assert merge(folders, tmp_path / "merged", frozen) == 1
    assert "good/b.png" not in names(tmp_path / "merged")


def test_a_missing_folder_is_named(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    with pytest.raises(MissingDataError, match="nothing not found"):
        merge([folders[0], tmp_path / "nothing"], tmp_path / "merged", set())


@pytest.mark.parametrize(
    ("misses", "false_alarms", "expected"),
    [(2, 3, True), (1, 3, True), (2, 0, True), (3, 0, False), (0, 4, False)],
)
def test_a_candidate_may_make_no_more_errors_of_either_kind(misses: int, false_alarms: int, expected: bool) -> None:
    assert FrozenErrors(2, 20, 3, 30).allows(FrozenErrors(misses, 20, false_alarms, 30)) == expected


@pytest.mark.parametrize("candidate", [FrozenErrors(0, 1, 0, 1), FrozenErrors(1, 1, 0, 1)])
def test_only_a_promoted_candidate_is_in_the_folder_that_was_asked_for(
    tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, candidate: FrozenErrors
) -> None:
    image(tmp_path / "frozen/good/x.png", 21)
    image(tmp_path / "frozen/scratch/y.png", 22)
    errors = iter([FrozenErrors(0, 1, 1, 1), candidate])

    def train(record: object, data: Path, folder: Path) -> object:
        assert len(names(data)) == 5
        folder.mkdir()
        return record

    monkeypatch.setattr(retraining, "find_run", lambda _: None)
    monkeypatch.setattr(retraining, "count_errors", lambda *_: next(errors))
    monkeypatch.setattr(retraining, "_train", train)
    data, corrections = folders
    outcome = retrain(tmp_path / "run", corrections, tmp_path / "frozen", tmp_path / "new", data)
    assert outcome.is_promoted == (candidate.misses == 0)
    assert (tmp_path / "new").exists() == outcome.is_promoted
    assert (tmp_path / "new.candidate").exists() != outcome.is_promoted


def test_faults_of_the_run_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="has no run"):
        retraining.find_run(tmp_path)
    (tmp_path / "new").mkdir()
    with pytest.raises(InvalidInputError, match="exists already"):
        retrain(tmp_path, tmp_path, tmp_path, tmp_path / "new")


RECIPE = """
name: plates
models:
  - class_path: OneStage
    supervision: masks
    init_args: {image_size: [64, 64], backbone: null, width: small, iterations: 4}
trainer: {accelerator: cpu}
data:
  - class_path: DefectFolder
    init_args: {root: ROOT, train_batch_size: 2}
supervision:
  - {name: masks, class_path: WithDefects, init_args: {real: 0.5}}
measure: {latency: false}
"""


def plates(folder: Path, good: int, bad: int, seed: int) -> Path:
    """Write images of noise, some with a white square, and masks of these."""
    rng = np.random.default_rng(seed)
    for number in range(good + bad):
        pixels, mask = rng.integers(90, 130, (64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
        if number >= good:
            pixels[20:40, 20:40], mask[20:40, 20:40] = 255, 255
        kind = "good" if number < good else "defect"
        files = {folder / kind: pixels} | ({folder / "masks" / kind: mask} if number >= good else {})
        for parent, values in files.items():
            parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(parent / f"{seed}-{number}.png")
    return folder


@pytest.mark.slow
def test_a_candidate_is_trained_with_the_same_recipe_on_old_and_corrected_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, corrections = plates(tmp_path / "data", 6, 4, seed=0), plates(tmp_path / "corrections", 2, 1, seed=1)
    frozen = plates(tmp_path / "frozen", 3, 2, seed=2)
    image(corrections / "good/known.png", 0).write_bytes((frozen / "good/2-0.png").read_bytes())
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("ROOT", str(data)))
    assert main(["benchmark", "--config", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "old")]) == 0
    options = ["--corrections", str(corrections), "--frozen", str(frozen), "--out", str(tmp_path / "new")]
    status = main(["retrain", str(tmp_path / "old"), *options])
    output = capsys.readouterr().out
    assert "left out: 1 image of the frozen set" in output
    assert output.count(" of 2, false alarms ") == 2
    assert (status == 0) == ("\npromoted: " in output) == (tmp_path / "new").exists()
    old, new = find_run(tmp_path / "old"), find_run(tmp_path / ("new" if status == 0 else "new.candidate"))
    assert (old.run.model, old.run.supervision) == (new.run.model, new.run.supervision)
    merged = names(Path(new.run.data.init_args["root"]))
    assert merged == sorted([*names(data), *(name for name in names(corrections) if "known" not in name)])
    assert new.split["train"] + new.split["test"] == 6 + 4 + 2 + 1
