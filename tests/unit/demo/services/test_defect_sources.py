"""Drawing defects in a painted region, and saving them to a folder."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from results_folder import Layout, write_results

pytest.importorskip("gradio", reason="gradio is not installed")

import gradio as gr

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data import DefectFolder, WithDefects
from anomalib_defect_plugins.demo.services.defect_collection import DefectCollection, zip_folder
from anomalib_defect_plugins.demo.services.defect_sources import (
    DefectSources,
    DrawnDefect,
    GeneratorSource,
    TrainedSource,
)
from anomalib_defect_plugins.demo.services.example_images import brick
from anomalib_defect_plugins.demo.services.results_store import ResultsStore
from anomalib_defect_plugins.demo.tabs.synthesize import SynthesizeTab
from anomalib_defect_plugins.generators import PoissonDefects
from anomalib_defect_plugins.models.defectgan import DefectGan

PHOTO = brick()[:, :200]

REGION = np.zeros(PHOTO.shape[:2], bool)
REGION[60:130, 40:110] = True


@pytest.fixture
def sources(tmp_path: Path) -> DefectSources:
    return DefectSources(ResultsStore(write_results(tmp_path / "results", Layout(models=("HtpGan",), images=2))))


@pytest.mark.parametrize(
    "name", ["procedural", "perturb", "noise", "cutpaste", "cutpaste_scar", "poisson", "shading", "mixed"]
)
def test_every_generator_draws_in_the_region_only(sources: DefectSources, name: str) -> None:
    source = sources.get(name)
    for category in source.categories:
        made = source.draw(PHOTO, REGION, category, (0, 1))
        assert made.mask.any()
        assert not made.mask[~REGION].any()
        np.testing.assert_array_equal(made.image[~made.mask], PHOTO[~made.mask])
        assert np.abs(made.image.astype(int) - PHOTO)[made.mask].max() > 2


def test_a_defect_depends_on_the_seed_alone(sources: DefectSources) -> None:
    source = sources.get("procedural")
    first, again, other = (source.draw(PHOTO, REGION, "hole", seed).image for seed in ((3, 0), (3, 0), (3, 1)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_thin_region_at_the_border_of_the_image_is_enough(sources: DefectSources) -> None:
    region = np.zeros(PHOTO.shape[:2], bool)
    region[:4, :60] = True
    assert sources.get("procedural").draw(PHOTO, region, "stain", (0, 0)).mask.any()


def test_the_kinds_of_a_generator_are_its_categories(sources: DefectSources) -> None:
    assert set(sources.get("procedural").categories) >= {"scratch", "crack"}
    assert set(sources.get("perturb").categories) >= {"tone", "fade"}
    assert sources.get("poisson").categories == ("poisson",)


def test_the_painted_region_is_the_control_map_of_a_trained_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DefectGan(image_size=(64, 64), categories=["dent", "rust"], channels=2, residual_blocks=0).eval()
    controls: list[torch.Tensor] = []

    def synthesize(
        images: torch.Tensor, control: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        controls.append(control)
        maps = torch.nn.functional.interpolate(control.amax(1, keepdim=True), (64, 64), mode="area")
        return images * (1 - maps), maps

    monkeypatch.setattr(model, "synthesize", synthesize)
    made = TrainedSource("trained", model).draw(PHOTO, REGION, "rust", (0, 0))
    assert controls[0].shape == (1, 2, *PHOTO.shape[:2])
    np.testing.assert_array_equal(controls[0][0, 1] > 0, REGION)
    assert controls[0][0, 0].sum() == 0
    assert made.mask[70:120, 50:100].all()
    assert not made.mask[PHOTO.shape[0] // 2 + 20 :].any()


def test_a_run_with_a_checkpoint_of_a_synthesizer_is_the_first_source_and_loaded_once(tmp_path: Path) -> None:
    from lightning import Trainer

    root = write_results(tmp_path / "results", Layout(models=("DefectGan",), data=("brick",), seeds=(0,), images=2))
    store = ResultsStore(root)
    run = store.runs()[0]
    assert run.key not in DefectSources(store).titles()  # without a checkpoint
    model = DefectGan(image_size=(32, 32), categories=["dent", "rust"], channels=2, residual_blocks=0)
    trainer = Trainer(logger=False, enable_checkpointing=False, barebones=True)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(run.record.folder / "model.ckpt", weights_only=True)
    sources = DefectSources(store)
    assert next(iter(sources.titles())) == run.key
    assert sources.get(run.key).categories == ("dent", "rust")
    assert sources.get(run.key) is sources.get(run.key)
    (run.record.folder / "model.ckpt").write_bytes(b"nonsense")
    with pytest.raises(InvalidInputError, match="cannot be loaded; repeat the run"):
        DefectSources(store).get(run.key)


def test_other_runs_and_unknown_names_are_refused(sources: DefectSources) -> None:
    for name in (sources.store.runs()[0].key, "../../etc", "defectgan"):
        with pytest.raises(InvalidInputError):
            sources.get(name)


def test_an_unknown_category_and_an_empty_region_are_refused(sources: DefectSources) -> None:
    source = sources.get("procedural")
    with pytest.raises(InvalidInputError, match="category is 'x'"):
        source.draw(PHOTO, REGION, "x", (0, 0))
    with pytest.raises(InvalidInputError, match="nothing is painted yet"):
        source.draw(PHOTO, np.zeros_like(REGION), "hole", (0, 0))


def test_a_source_that_draws_nothing_visible_is_reported() -> None:
    class Nothing(GeneratorSource):
        def _draw(
            self, image: torch.Tensor, region: torch.Tensor, category: str, rng: torch.Generator
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return image, region

    source = Nothing("nothing", PoissonDefects)
    with pytest.raises(InvalidInputError, match="nothing makes no nothing that is visible in this region"):
        source.draw(PHOTO, REGION, "nothing", (0, 0))


def collection(count: int = 3) -> DefectCollection:
    made = DefectCollection()
    for number in range(count):
        image = np.where(REGION[..., None], 255 - PHOTO, PHOTO)
        made.add("plate.png", PHOTO, DrawnDefect(image, REGION), ("dent", "rust")[number % 2], "test", 0)
    return made


def test_the_saved_folder_can_be_trained_on(tmp_path: Path) -> None:
    folder = collection(4).save(tmp_path / "results", "mine")
    assert folder == tmp_path / "results/synthetic/mine"
    assert sorted(path.name for path in folder.iterdir()) == [
        "dent", "good", "masks", "rust", "settings.json", "table.csv",
    ]  # fmt: skip
    data = DefectFolder(folder, num_workers=0)
    data.setup()
    assert sorted(data.test_data.samples.defect_type) == ["dent", "dent", "rust", "rust"]
    np.testing.assert_array_equal(data.test_data[0].gt_mask, REGION)
    wrapped = WithDefects(DefectFolder(folder, num_workers=0), real=2)
    wrapped.setup()
    assert len(wrapped.train_data) == 3
    with Image.open(folder / "good/00000.png") as image:
        np.testing.assert_array_equal(np.asarray(image), PHOTO)


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "/tmp/x", "a/b", "a\\b", "x" * 61, "a b", "~", ".x", "x\n", None, 3]
)
def test_an_invalid_folder_name_is_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(InvalidInputError, match="cannot be the name of the folder"):
        collection().save(tmp_path / "results", name)
    assert not list(tmp_path.rglob("*.png"))


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    collection().save(tmp_path, "mine")
    with pytest.raises(InvalidInputError, match="there is a folder mine already"):
        collection().save(tmp_path, "mine")


def test_a_link_in_the_results_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results/synthetic").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInputError, match="is a link to elsewhere"):
        collection().save(tmp_path / "results", "mine")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_an_empty_collection_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is nothing to save yet"):
        DefectCollection().save(tmp_path, "mine")


def test_a_collection_has_a_maximum_size() -> None:
    made = collection(3)
    made.check_room(61)
    with pytest.raises(InvalidInputError, match="there are 3 images, and 62 more would exceed 64"):
        made.check_room(62)


def test_the_zip_file_contains_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    path = zip_folder(collection(1).save(tmp_path, "mine"), "token")
    assert Path(path) == tmp_path / "cache/token/mine.zip"
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert names == {f"mine/{name}" for name in ("dent/00000.png", "masks/dent/00000.png", "good/00000.png",
                                                 "settings.json", "table.csv")}  # fmt: skip


def test_the_tab_reports_missing_input(sources: DefectSources) -> None:
    with gr.Blocks(), gr.Tab() as parent:
        tab = SynthesizeTab(sources.store, parent)
    with pytest.raises(gr.Error, match="there is no normal image yet"):
        tab.generate(None, "", "procedural", "hole", 1, 0, None)
    with pytest.raises(gr.Error, match="nothing is painted yet"):
        tab.generate(("plate.png", PHOTO), "", "procedural", "hole", 1, 0, None)
    with pytest.raises(gr.Error, match="there is nothing to save yet"):
        tab.save(None, "mine")
