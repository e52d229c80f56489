"""Any image or configuration yields a result or a one-line error, and its file is unchanged; see ``bad_input``."""

import inspect
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule
from bad_input import CASES, cases, count_cases, one_line  # noqa: F401 - a fixture
from bright_graph import bright_graph
from data_strategies import MASK, PHOTO, folder_layouts, mask_files, write_layout
from hypothesis import given
from hypothesis import strategies as st
from mask_samples import LOSSY, REFUSED, SAMPLES, photo
from small_models import MODELS, make_model
from strategies import (
    DAMAGES,
    VALUES,
    changed,
    deep_tiff_files,
    image_files,
    tensors,
    turned_image_files,
)

from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.image_io import check_image, read_size
from anomalib_defect_plugins.core.mask_io import leaves_background
from anomalib_defect_plugins.data import CheckedDataset, DefectFolder, TextureDefects, WithDefects
from anomalib_defect_plugins.data.annotations.conversion import open_source, to_coco, to_folder
from anomalib_defect_plugins.data.dataset import check_samples, reading
from anomalib_defect_plugins.data.sample_table import Sample, make_table
from anomalib_defect_plugins.data.split_file import read_split
from anomalib_defect_plugins.inference.openvino import Inspector
from anomalib_defect_plugins.inference.predictor import InspectSettings
from anomalib_defect_plugins.plugins import connect
from anomalib_defect_plugins.plugins.instantiate import build
from anomalib_defect_plugins.plugins.manager import descendants

pytestmark = pytest.mark.faults

EXPORTS = Path(__file__).parents[1] / "fixtures" / "annotations"

# Images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("campaign")


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return Inspector(bright_graph(), InspectSettings(threshold=0.5), threads=1)


def dataset_of(path: Path, mask: Path) -> CheckedDataset:
    dataset = CheckedDataset()
    dataset.samples = make_table([Sample(str(path), "test", "crack", str(mask))])
    return dataset


@cases(75)
@given(drawn=image_files())
def test_an_image_is_read_or_named_in_one_line_and_its_file_is_unchanged(drawn, folder, inspector):
    suffix, content = drawn
    path = folder / f"image{suffix}"
    path.write_bytes(content)
    dataset = dataset_of(path, path)
    with one_line("image files, checked", str(path)):
        check_samples(dataset)
    with one_line("image files, read", str(path)):
        item = dataset[0]
        assert item.image.shape[0] == 3
        assert 0 <= item.image.min() <= item.image.max() <= 1
        assert item.gt_mask.shape == item.image.shape[1:]
    ((number, result),) = inspector.inspect([(0, str(path))])
    CASES["image files, inspected"] += 1
    assert number == 0
    assert result.get("error") or math.isfinite(result["score"])
    assert path.read_bytes() == content


@cases(60)
@given(drawn=deep_tiff_files() | turned_image_files())
def test_any_depth_and_orientation_is_read_alike_by_all_readers_or_named_in_one_line(drawn, folder, inspector):
    suffix, content = drawn
    path = folder / f"deep{suffix}"
    path.write_bytes(content)
    size = image = None
    with one_line("depths and orientations, checked", str(path)), reading("image", str(path)):
        size = check_image(path)
    with one_line("depths and orientations, read", str(path)):
        with reading("image", str(path)):
            image = CheckedDataset().load_image(str(path))
        assert 0 <= image.min() <= image.max() <= 1
    if image is not None:
        assert read_size(path) == image.shape[:0:-1]
        assert size in {None, image.shape[:0:-1]}
    ((_, result),) = inspector.inspect([(0, str(path))])
    CASES["depths and orientations, inspected"] += 1
    assert (image is None) == (result.get("error") is not None)
    if image is not None:
        assert result["score"] == pytest.approx(float(image.max()), abs=1e-6)
        assert (result["width"], result["height"]) == image.shape[:0:-1]


@cases(100)
@given(data=st.data())
def test_a_mask_means_what_is_drawn_or_is_named_in_one_line(data, folder):
    path, marks, name, damage = data.draw(mask_files(folder))
    image = folder / "image.png"
    photo(marks.shape).save(image)
    dataset = dataset_of(image, path)
    read = None
    with one_line("mask encodings, checked", str(path)):
        check_samples(dataset)
    with one_line("mask encodings, read", str(path)):
        read = dataset[0].gt_mask.numpy()
    if damage is not None:
        return
    # The ground of a large drawing could be a drawing itself.
    assert read is None or name in SAMPLES or leaves_background(~marks) or marks.mean() > 0.5
    assert read is not None or name in {*REFUSED, *LOSSY} or not leaves_background(marks)
    if read is not None and name in SAMPLES and leaves_background(marks):
        # The noise of former compression is only recognised if there is enough of it.
        wrong = marks & ~read if name == "PNG that was a JPEG" else marks != read
        assert wrong.mean() < (0.1 if name in LOSSY else 1e-9), name


@cases(60)
@given(content=folder_layouts())
def test_a_data_folder_is_read_without_what_else_it_holds_or_named_in_one_line(content, folder):
    root = folder / "layout"
    shutil.rmtree(root, ignore_errors=True)
    write_layout(root, content)
    for arguments in ({}, {"mask_dir": None}, {"defect_dirs": ["scratch"]}):
        with one_line("folder layouts"):
            datamodule = DefectFolder(root, num_workers=0, **arguments)
            datamodule.setup()
            tables = [datamodule.train_data.samples, datamodule.test_data.samples]
            images = {str(Path(path).relative_to(root)): kind for table in tables for path, kind in
                      zip(table.image_path, table.defect_type, strict=True)}  # fmt: skip
            masks = {str(Path(path).relative_to(root)) for path in datamodule.test_data.samples.mask_path if path}
            # A photo beside another one of a name for masks is taken for a mask, which is refused when it is read.
            assert all(dict(content)[image] == PHOTO for image in images)
            assert set(images.values()) <= {"good", "scratch", "dent", "mine"}
            assert not masks & set(images)
            check_samples(datamodule.test_data)
            assert all(dict(content)[mask] == MASK for mask in masks)


ANNOTATIONS = {
    "coco_polygons": "annotations/instances_train.json",
    "coco_masks": "annotations/instances_train.json",
    "labelme": "plate_2.json",
    "label_studio": "export.json",
    "cvat_masks": "train.xml",
    "cvat_polygons": "train.xml",
    "yolo_polygons": "labels/plate_1.txt",
    "voc_masks": "labelmap.txt",
}
"""Files of annotations in the exports of the labelling tools."""


@cases(60)
@given(data=st.data(), name=st.sampled_from(sorted(ANNOTATIONS)))
def test_annotations_are_converted_or_named_in_one_line(data, name, folder):
    pytest.importorskip("pycocotools", reason="polygons need pycocotools, an extra")
    export, out = folder / "export", folder / "converted"
    for path in (export, out):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(EXPORTS / name, export)
    path = export / ANNOTATIONS[name]
    if path.suffix == ".json" and data.draw(st.booleans()):
        path.write_text(json.dumps(data.draw(changed(json.loads(path.read_text())))))
    else:
        path.write_bytes(data.draw(DAMAGES)(path.read_bytes()))
    before, done = {path.name for path in folder.iterdir()}, False
    with one_line("annotations"):
        source = open_source(export)
        to_folder(source, out)
        done = True
        to_coco(source, folder / "all.json")
    # Nothing is written elsewhere, nor half of it.
    assert {path.name for path in folder.iterdir()} <= before | {"all.json"} | ({"converted"} if done else set())


@cases(60)
@given(images=tensors(), number=st.integers(0, 99))
def test_a_generator_draws_or_fails_in_one_line_and_does_not_modify_its_images(images, number):
    connect()
    kinds = sorted((kind for kind in descendants(DefectGenerator) if _is_own(kind)), key=lambda kind: kind.__name__)
    before = images.clone()
    generator = kinds[number % len(kinds)]()
    with one_line("image tensors"):
        defective, mask = generator(images)
        assert defective.shape == images.shape
        assert mask.dtype == torch.bool
    assert torch.equal(images.nan_to_num(), before.nan_to_num())


def _is_own(kind: type[DefectGenerator]) -> bool:
    """Whether a generator belongs to this package and can be built without arguments."""
    own = kind.__module__.startswith("anomalib_defect_plugins.generators") and not inspect.isabstract(kind)
    defaults = [parameter.default for parameter in inspect.signature(kind).parameters.values()]
    return own and inspect.Parameter.empty not in defaults


@pytest.fixture(scope="module")
def untrained() -> dict[str, AnomalibModule]:
    return {name: make_model(name).eval() for name in MODELS}


@cases(60)
@given(images=tensors(), name=st.sampled_from(sorted(MODELS)))
def test_a_model_scores_any_batch_of_images(images, name, untrained):
    if images.shape[1] != 3 or not len(images) or images.dtype != torch.float32:
        return
    CASES["image tensors, inspected"] += 1
    with torch.inference_mode():
        result = untrained[name](images)
    assert result.pred_score.numel() == len(images)


# Configurations


VALID = {
    "name": "fuzz",
    "seeds": [0, 1],
    "trainer": {"max_epochs": 1},
    "models": [
        {
            "class_path": "Sidn",
            "init_args": {"iterations": {"grid": [1, 2]}, "channels": 4, "backbone": None},
            "data": ["a"],
        }
    ],
    "data": [{"name": "a", "class_path": "TextureDefects", "init_args": {"category": "grass", "image_size": 64}}],
    "supervision": [{"name": "masks", "class_path": "WithDefects", "init_args": {"real": 3}}],
    "measure": {"latency": False, "keep": {"maps": True}},
}


@cases(60)
@given(content=changed(VALID))
def test_a_benchmark_file_is_read_or_named_in_one_line(content, folder):
    path = folder / "benchmark.yaml"
    path.write_text(yaml.safe_dump(content))
    with one_line("benchmark files", str(path)):
        assert read_benchmark(path).runs


@cases(30)
@given(text=st.text(max_size=60) | st.binary(max_size=60).map(lambda content: content.decode("latin-1")))
def test_a_benchmark_file_of_any_text_is_one_line(text, folder):
    path = folder / "benchmark.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with one_line("benchmark files", str(path)):
        read_benchmark(path)


def arguments_of(kind: type) -> list[str]:
    """Return the names of the arguments that take plain values; a backbone would be looked up online."""
    others = {"self", "kwargs", "base", "root", "pre_processor", "post_processor", "evaluator", "visualizer"}
    return sorted(set(inspect.signature(kind.__init__).parameters) - others)


@st.composite
def wrong_arguments(draw: st.DrawFn, kind: type, valid: dict[str, Any]) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(arguments_of(kind)), min_size=1, max_size=2, unique=True))
    return {**valid, **{name: draw(VALUES) for name in names}}


@cases(60)
@given(data=st.data(), name=st.sampled_from(sorted(MODELS)))
def test_a_model_is_built_or_its_arguments_are_refused_in_one_line(data, name):
    kind, small, _ = MODELS[name]
    arguments = data.draw(wrong_arguments(kind, {"image_size": [64, 64], **small}))
    with one_line("arguments of models"):
        build(AnomalibModule, {"class_path": kind.__name__, "init_args": arguments}, "the model")


@cases(30)
@given(data=st.data(), kind=st.sampled_from([TextureDefects, WithDefects]))
def test_a_data_module_is_set_up_or_its_arguments_are_refused_in_one_line(data, kind, folder):
    base = {"class_path": "TextureDefects", "init_args": {"root": str(folder / "texture"), "image_size": 64}}
    valid = base["init_args"] if kind is TextureDefects else {"base": base}
    arguments = data.draw(wrong_arguments(kind, valid))
    arguments |= {"num_workers": 0} if kind is TextureDefects else {}
    if arguments.get("image_size", 64) not in (64, [64, 64]):
        arguments["image_size"] = 64  # other sizes take seconds to generate
    with one_line("arguments of data"):
        datamodule = build(AnomalibDataModule, {"class_path": kind.__name__, "init_args": arguments}, "the data")
        datamodule.prepare_data()
        datamodule.setup()


@cases(30)
@given(damage=DAMAGES)
def test_a_split_file_is_read_or_named_in_one_line(damage, folder):
    path, images = folder / "split.csv", [f"/data/{number}.png" for number in range(4)]
    lines = [f"train,{number}.png,0,good" for number in range(4)]
    path.write_bytes(damage("\n".join(["split,image,label,defect_type", *lines]).encode()))
    with one_line("split files", str(path)):
        read_split(path, images)
