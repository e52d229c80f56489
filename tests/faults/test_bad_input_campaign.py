"""Any image, configuration or checkpoint yields a result or a one-line error, executes no code and loses no data.

``BAD_INPUT_PROFILE=campaign`` runs many cases instead of a few (``ci``). ``BAD_INPUT_PAGE`` is a Markdown file for the
number of cases.
"""

import copy
import inspect
import io
import math
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule
from bright_graph import bright_graph
from data_strategies import MASK, PHOTO, folder_layouts, mask_files, write_layout
from fault_page import today, write_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mask_samples import LOSSY, REFUSED, SAMPLES, photo
from small_models import MODELS, make_model
from strategies import (
    DAMAGES,
    VALUES,
    Damage,
    Payload,
    changed,
    deep_tiff_files,
    image_files,
    tensors,
    turned_image_files,
)

from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import UserError, error_line
from anomalib_defect_plugins.core.image_io import check_image, read_size
from anomalib_defect_plugins.core.mask_io import leaves_background
from anomalib_defect_plugins.data import CheckedDataset, DefectFolder, TextureDefects, WithDefects
from anomalib_defect_plugins.data.dataset import check_samples, reading
from anomalib_defect_plugins.data.sample_table import Sample, make_table
from anomalib_defect_plugins.data.split_file import read_split
from anomalib_defect_plugins.inference.openvino import Inspector, InspectSettings
from anomalib_defect_plugins.models.components.checkpoint_io import AtomicCheckpointIO
from anomalib_defect_plugins.plugins import connect
from anomalib_defect_plugins.plugins.instantiate import build
from anomalib_defect_plugins.plugins.manager import descendants
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import fit, seed_all

pytestmark = pytest.mark.slow

PROFILES = {"ci": 1, "campaign": 20}

PROFILE = os.environ.get("BAD_INPUT_PROFILE", "ci")

CASES: Counter[str] = Counter()
"""Number of cases by subject."""


def cases(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run ``count`` fixed cases; in a campaign, many more and random ones."""
    return settings(
        max_examples=count * PROFILES[PROFILE],
        derandomize=PROFILE == "ci",
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def one_line(subject: str, *names: str) -> Iterator[None]:
    """Accept errors that the user sees as one line; any other error fails the test.

    Args:
        subject: Subject of the case, for the count.
        names: Texts that the line must contain.
    """
    CASES[subject] += 1
    try:
        yield
    except Exception as error:
        line = error_line(error)
        if line is None:
            raise
        assert len(line) > len("error: ") + 10
        assert all(name in line for name in names), line


@pytest.fixture(scope="module", autouse=True)
def _count() -> Iterator[None]:
    """Report the number of cases at the end."""
    yield
    summary = ", ".join(f"{count} {subject}" for subject, count in sorted(CASES.items()))
    print(f"\nbad input, profile {PROFILE}: {CASES.total()} cases: {summary}")
    if page := os.environ.get("BAD_INPUT_PAGE"):
        for subject, count in sorted(CASES.items()):
            write_row(Path(page), "cases", [subject, str(count), today()], ["input", "cases", "tried on"])


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


@cases(150)
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
    "models": [{"class_path": "Sidn", "init_args": {"iterations": {"grid": [1, 2]}, "channels": 4}, "data": ["a"]}],
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


# Checkpoints


@pytest.fixture(scope="module")
def surfaces(folder: Path) -> Path:
    """A few small training images."""
    write_folder_data(folder / "data", image_size=(40, 40), normal=4, normal_test=2, defective=2)
    return folder / "data"


@pytest.fixture(scope="module")
def checkpoints(surfaces: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A valid ``last.ckpt`` of two models."""
    paths = {}
    for name in ("sidn", "defectgan"):
        folder = tmp_path_factory.mktemp(name)
        train(name, surfaces, folder)
        (paths[name],) = folder.rglob("last.ckpt")
    return paths


def train(name: str, data: Path, folder: Path, ckpt_path: Path | None = None) -> None:
    seed_all(0)
    datamodule = folder_datamodule(data)
    datamodule = WithDefects(datamodule, real=1, masks=False) if name == "defectgan" else datamodule
    fit(make_model(name, iterations=2), datamodule, folder, {"limit_val_batches": 1}, ckpt_path=ckpt_path)


def load(name: str, path: Path) -> None:
    """Load a checkpoint as a model and as a trainer do."""
    kind = MODELS[name][0]
    with one_line("checkpoints, loaded"):
        kind.load_from_checkpoint(path, map_location="cpu")
    with one_line("checkpoints, read by a trainer", str(path)):
        AtomicCheckpointIO().load_checkpoint(path)


@cases(40)
@given(damage=DAMAGES, name=st.sampled_from(["sidn", "defectgan"]))
def test_damaged_bytes_are_found_and_the_file_is_unchanged(damage: Damage, name, checkpoints, folder):
    content = damage(checkpoints[name].read_bytes())
    path = folder / "damaged.ckpt"
    path.write_bytes(content)
    load(name, path)
    with suppress(UserError):  # bytes without meaning, such as timestamps in the archive, may change
        loaded = AtomicCheckpointIO().load_checkpoint(path)
        assert is_same(loaded, torch.load(checkpoints[name], weights_only=True))
    assert path.read_bytes() == content


def is_same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one.nan_to_num(), other.nan_to_num())
    return repr(one) == repr(other)


@cases(40)
@given(data=st.data(), name=st.sampled_from(["sidn", "defectgan"]))
def test_changed_content_is_accepted_or_refused_in_one_line(data, name, checkpoints, folder):
    content = torch.load(checkpoints[name], weights_only=True)
    path = folder / "changed.ckpt"
    torch.save(data.draw(changed(content)), path)
    load(name, path)


@cases(20)
@given(data=st.data())
def test_training_resumes_from_changed_content_or_fails_in_one_line(data, checkpoints, surfaces, folder):
    content = torch.load(checkpoints["sidn"], weights_only=True)
    key = data.draw(
        st.sampled_from(["optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step"])
    )
    path = folder / "resumed.ckpt"
    torch.save({**content, key: data.draw(changed(content[key]))}, path)
    before = path.read_bytes()
    with one_line("checkpoints, resumed"):
        train("sidn", surfaces, folder / "resumed", path)
    shutil.rmtree(folder / "resumed", ignore_errors=True)
    assert path.read_bytes() == before


def test_the_checkpoint_of_another_model_is_refused_in_one_line(checkpoints):
    for name, other in (("sidn", "defectgan"), ("defectgan", "sidn")):
        with one_line("checkpoints, of another model"):
            MODELS[name][0].load_from_checkpoint(checkpoints[other])
            pytest.fail("it was loaded")


@pytest.mark.parametrize("version", [None, "0.9.0", "1.5.10", "2.1.4", "later", 3])
def test_the_checkpoint_of_another_lightning_is_refused_in_one_line(checkpoints, tmp_path, version):
    content = torch.load(checkpoints["sidn"], weights_only=True)
    torch.save({**content, "pytorch-lightning_version": version}, tmp_path / "other.ckpt")
    CASES["checkpoints, of another version"] += 1
    with pytest.raises(UserError, match="it was written by Lightning"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "other.ckpt")


def payloads(content: dict[str, Any], target: Path) -> dict[str, bytes]:
    """Return files that create ``target`` if their content is executed."""
    payload = Payload(target)

    def saved(value: object, zipped: bool = True) -> bytes:
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=zipped)
        return file.getvalue()

    inside = copy.copy(content)
    inside["hyper_parameters"] = {**content["hyper_parameters"], "channels": payload}
    weights = {**content, "state_dict": {**content["state_dict"], "payload": payload}}
    return {
        "pickle": pickle.dumps(payload),
        "alone": saved(payload),
        "as a hyper-parameter": saved(inside),
        "among the weights": saved(weights),
        "beside the rest": saved({**content, "payload": payload}),
        "in the old format": saved(weights, zipped=False),
    }


@pytest.mark.parametrize("name", ["sidn", "defectgan"])
def test_code_in_a_checkpoint_is_not_executed(name, checkpoints, tmp_path):
    target = tmp_path / "executed"
    for where, content in payloads(torch.load(checkpoints[name], weights_only=True), target).items():
        path = tmp_path / "bad.ckpt"
        path.write_bytes(content)
        for load_checkpoint in (MODELS[name][0].load_from_checkpoint, AtomicCheckpointIO().load_checkpoint):
            CASES["checkpoints, with a payload"] += 1
            with pytest.raises(UserError):
                load_checkpoint(path)
            assert not target.exists(), where
    pickle.loads(payloads({"hyper_parameters": {}, "state_dict": {}}, target)["pickle"])
    assert target.exists(), "the payload does not work"
