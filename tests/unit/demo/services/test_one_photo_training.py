"""Training on one photo: one training after another, independent of each other, stopped at any time."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("gradio", reason="gradio is not installed")

import gradio as gr

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.services import one_photo_training
from anomalib_defect_plugins.demo.services.durations import minutes
from anomalib_defect_plugins.demo.services.example_images import brick, defective_brick
from anomalib_defect_plugins.demo.services.one_photo_training import (
    MAX_WAITING,
    Training,
    TrainingQueue,
    TrainingSettings,
    model_size,
)
from anomalib_defect_plugins.demo.services.results_store import ResultsStore
from anomalib_defect_plugins.demo.services.uploads import Photo
from anomalib_defect_plugins.demo.tabs.one_photo import PRESETS, OnePhotoTab

TINY, ENDLESS = TrainingSettings(64, 2, 2), TrainingSettings(64, 2, 100_000)


def photo(seed: int = 0) -> Photo:
    pixels = np.random.default_rng(seed).integers(0, 256, (70, 80, 3), np.uint8)
    return Photo(f"photo{seed}.png", pixels, (70, 80))


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "timeout"
        time.sleep(0.01)


def predict(training: Training, photo: Photo) -> npt.NDArray[np.float32]:
    assert training.model is not None
    anomaly_map = training.model(photo.pixels).anomaly_map
    assert anomaly_map is not None
    return anomaly_map


def test_the_model_has_the_aspect_ratio_of_the_photo() -> None:
    # 128 x 128 = 16384 = 91 x 181 = 64 x 256, about
    assert model_size(1000, 1000, 128) == (128, 128)
    assert model_size(1000, 2000, 128) == (91, 181)
    assert model_size(100, 2000, 128) == (64, 256)  # no longer than four to one
    assert model_size(70, 90, 256) == (70, 90)  # a small photo is not enlarged
    assert model_size(32, 32, 256) == (64, 64)


def test_a_training_reports_its_progress_and_ends_with_a_model() -> None:
    training = Training(photo(), TINY)
    assert training.progress().state == "waiting"
    training.run()
    progress = training.progress()
    assert (progress.state, progress.done, progress.share) == ("done", 2, 1)
    assert [picture.shape[:2] for picture in progress.previews] == progress.sizes
    anomaly_map = predict(training, photo(1))
    assert anomaly_map.shape == progress.sizes[-1]
    assert 0 <= anomaly_map.min() <= anomaly_map.max() <= 1
    assert training.model is not None
    assert training.model.thresholds == (0.5, 0.5)


def test_trainings_are_independent_of_each_other() -> None:
    alone = Training(photo(0), TINY)
    alone.run()
    expected = predict(alone, photo(2))
    queue, trainings = TrainingQueue(), [Training(photo(seed), TINY) for seed in (0, 1)]
    for training in trainings:
        queue.submit(training)
    wait_for(lambda: all(training.progress().is_over for training in trainings))
    maps = [predict(training, photo(2)) for training in trainings]
    np.testing.assert_array_equal(maps[0], expected)
    assert np.abs(maps[1] - expected).max() > 0.01


def test_a_second_training_waits_until_the_first_is_stopped() -> None:
    queue, first, second, third = TrainingQueue(), *(Training(photo(seed), ENDLESS) for seed in range(3))
    for training in (first, second, third):
        queue.submit(training)
    wait_for(lambda: first.progress().share > 0)
    assert [training.progress().state for training in (second, third)] == ["waiting", "waiting"]
    assert [queue.count_ahead(training) for training in (first, second, third)] == [0, 1, 2]
    second.stop()  # before its turn
    assert second.progress().state == "stopped"
    assert queue.count_ahead(third) == 1
    first.stop()
    wait_for(lambda: third.progress().share > 0)
    assert first.progress().state == "stopped"
    assert second.progress().share == 0
    third.stop()
    wait_for(lambda: third.progress().is_over)
    assert queue.count_ahead(third) == 0


def test_a_page_that_is_loaded_again_finds_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_photo_training, "GRACE_S", 0.3)
    queue, training = TrainingQueue(), Training(photo(), ENDLESS)
    queue.submit(training, "me")
    assert queue.find("stranger") is queue.find("") is None
    queue.leave(training)
    assert queue.find("me") is training  # after a reload
    assert queue.find("me") is training  # on a second page
    queue.leave(training)
    time.sleep(0.6)
    assert not training.progress().is_over
    queue.leave(training)
    wait_for(lambda: training.progress().state == "stopped")
    assert queue.find("me") is None


def test_a_full_queue_refuses_a_training() -> None:
    queue, trainings = TrainingQueue(), [Training(photo(), ENDLESS) for _ in range(MAX_WAITING + 2)]
    for training in trainings[:MAX_WAITING]:
        queue.submit(training)
    with pytest.raises(InvalidInputError, match="16 other trainings are waiting already"):
        queue.submit(trainings[MAX_WAITING])
    trainings[1].stop()
    queue.submit(trainings[-1])
    for training in trainings:
        training.stop()
    wait_for(lambda: all(training.progress().is_over for training in trainings))


def test_a_stopped_training_releases_photo_and_network() -> None:
    training = Training(photo(), ENDLESS)
    training.stop()
    assert training.progress().state == "stopped"
    assert training._data is None


def test_a_failed_training_reports_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(photo(), TINY)

    def fail(*_: object) -> None:
        msg = "d_loss is nan at scale 1 of 2: lower the learning rates"
        raise InvalidInputError(msg)

    monkeypatch.setattr(training, "_train", fail)
    training.run()
    assert training.progress().state == "failed"
    assert training.progress().error == "d_loss is nan at scale 1 of 2: lower the learning rates"


def test_a_photo_of_one_tone_is_refused() -> None:
    flat = Photo("flat.png", np.full((64, 64, 3), 99, np.uint8), (64, 64))
    with pytest.raises(InvalidInputError, match="the photo is of one tone"):
        Training(flat, TINY)


def test_the_default_preset_is_the_last_one_and_the_examples_have_its_size() -> None:
    assert list(PRESETS.values())[-1] == TrainingSettings(256, 7, 100)
    assert brick().shape == (256, 256, 3)
    examples = defective_brick()
    normal = examples.pop("normal")
    assert all((pixels != normal).any() for pixels in examples.values())


def test_the_tab_reports_missing_input(tmp_path: Path) -> None:
    with gr.Blocks(), gr.Tab() as page:
        tab = OnePhotoTab(ResultsStore(tmp_path), page, gr.BrowserState(""))
    with pytest.raises(gr.Error, match="there is no photo yet"):
        tab.start(None, next(iter(PRESETS)), None, "me")
    with pytest.raises(gr.Error, match="training preset is 'x'"):
        tab.start("photo.png", "x", None, "me")
    with pytest.raises(gr.Error, match="train again"):
        next(tab.predict(["photo.png"], None))


def test_durations_are_rounded_to_whole_seconds() -> None:
    assert [minutes(seconds) for seconds in (0.4, 59.7, 119.6, 3600)] == [
        "0:00 min",
        "1:00 min",
        "2:00 min",
        "60:00 min",
    ]
