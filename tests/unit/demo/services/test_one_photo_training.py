"""Training on one photo: one after another, each on its own, to be stopped at any time."""

import time
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("gradio", reason="gradio is not installed")

import gradio as gr

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.services.example_images import brick, defective_brick
from anomalib_defect_plugins.demo.services.one_photo_training import MOST_WAITING, Line, Recipe, Training, model_size
from anomalib_defect_plugins.demo.services.uploads import Photo
from anomalib_defect_plugins.demo.tabs.one_photo import RECIPES, OnePhoto

TINY, ENDLESS = Recipe(64, 2, 2), Recipe(64, 2, 100_000)


def photo(seed: int = 0) -> Photo:
    pixels = np.random.default_rng(seed).integers(0, 256, (70, 80, 3), np.uint8)
    return Photo(f"photo{seed}.png", pixels, (70, 80))


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.01)


def trained(seed: int = 0) -> Training:
    training = Training(photo(seed), TINY)
    training.run()
    return training


def test_a_model_is_made_in_the_proportions_of_the_photo():
    # 128 x 128 = 16384 = 91 x 181 = 64 x 256, about
    assert model_size(1000, 1000, 128) == (128, 128)
    assert model_size(1000, 2000, 128) == (91, 181)
    assert model_size(100, 2000, 128) == (64, 256)  # no longer than four to one
    assert model_size(70, 90, 256) == (70, 90)  # a small photo is not made larger
    assert model_size(32, 32, 256) == (64, 64)


def test_a_training_tells_of_each_scale_and_ends_with_a_model():
    training = Training(photo(), TINY)
    assert training.progress().state == "waiting"
    training.run()
    progress = training.progress()
    assert (progress.state, progress.done, progress.share) == ("done", 2, 1)
    assert [picture.shape[:2] for picture in progress.photo] == progress.sizes
    prediction = training.model(photo(1).pixels)
    assert prediction.anomaly_map.shape == progress.sizes[-1]
    assert 0 <= prediction.anomaly_map.min() <= prediction.anomaly_map.max() <= 1
    assert training.model.thresholds == (0.5, 0.5)


def test_trainings_do_not_mix():
    alone = trained().model(photo(2).pixels).anomaly_map
    line, trainings = Line(), [Training(photo(seed), TINY) for seed in (0, 1)]
    for training in trainings:
        line.enter(training)
    wait_for(lambda: all(training.progress().is_over for training in trainings))
    maps = [training.model(photo(2).pixels).anomaly_map for training in trainings]
    np.testing.assert_array_equal(maps[0], alone)
    assert np.abs(maps[1] - alone).max() > 0.01


def test_a_second_training_waits_until_the_first_is_stopped():
    line, first, second, third = Line(), *(Training(photo(seed), ENDLESS) for seed in range(3))
    for training in (first, second, third):
        line.enter(training)
    wait_for(lambda: first.progress().share > 0)
    assert [training.progress().state for training in (second, third)] == ["waiting", "waiting"]
    assert [line.ahead(training) for training in (first, second, third)] == [0, 1, 2]
    second.stop()  # before its turn
    assert second.progress().state == "stopped"
    assert line.ahead(third) == 1
    first.stop()
    wait_for(lambda: third.progress().share > 0)
    assert first.progress().state == "stopped"
    assert second.progress().share == 0
    third.stop()
    wait_for(lambda: third.progress().is_over)
    assert line.ahead(third) == 0


def test_a_line_that_is_full_is_told_of():
    line, trainings = Line(), [Training(photo(), ENDLESS) for _ in range(MOST_WAITING + 2)]
    for training in trainings[:MOST_WAITING]:
        line.enter(training)
    with pytest.raises(InvalidInputError, match="16 others wait for their training already"):
        line.enter(trainings[MOST_WAITING])
    trainings[1].stop()
    line.enter(trainings[-1])
    for training in trainings:
        training.stop()
    wait_for(lambda: all(training.progress().is_over for training in trainings))


def test_what_is_stopped_keeps_neither_photo_nor_network():
    training = Training(photo(), ENDLESS)
    training.stop()
    assert training.progress().state == "stopped"
    assert training._pixels is None
    assert training._net is None


def test_a_training_that_fails_says_why(monkeypatch: pytest.MonkeyPatch):
    training = Training(photo(), TINY)

    def fail() -> None:
        msg = "d_loss is nan at scale 1 of 2: lower the learning rates"
        raise InvalidInputError(msg)

    monkeypatch.setattr(training, "_train", fail)
    training.run()
    assert training.progress().state == "failed"
    assert training.progress().error == "d_loss is nan at scale 1 of 2: lower the learning rates"


def test_a_photo_of_one_tone_is_refused():
    flat = Photo("flat.png", np.full((64, 64, 3), 99, np.uint8), (64, 64))
    with pytest.raises(InvalidInputError, match="the photo is of one tone"):
        Training(flat, TINY)


def test_the_default_is_the_thorough_one_and_fits_an_example():
    assert list(RECIPES.values())[-1] == Recipe(256, 7, 100)
    assert brick().shape == (256, 256, 3)
    examples = defective_brick()
    normal = examples.pop("normal")
    assert all((pixels != normal).any() for pixels in examples.values())


def test_the_tab_asks_for_what_is_missing_in_one_line():
    with gr.Blocks():
        tab = OnePhoto()
    with pytest.raises(gr.Error, match="there is no photo yet"):
        tab.begin(None, next(iter(RECIPES)), None)
    with pytest.raises(gr.Error, match="how thoroughly is 'x'"):
        tab.begin("photo.png", "x", None)
    with pytest.raises(gr.Error, match="train again"):
        tab.look(["photo.png"], None)
