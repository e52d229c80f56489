"""Loading a trained model for synthesis, whatever its class."""

from pathlib import Path
from typing import Any

import pytest
from fake_synthesizer import FakeSynthesizer

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.synthesis import defect_synthesizer
from anomalib_defect_plugins.synthesis.defect_synthesizer import load_synthesizer, synthesizer_classes


class Accepting(FakeSynthesizer):
    @classmethod
    def load_for_synthesis(cls, checkpoint: Path, device: str = "cpu") -> "Accepting":
        del checkpoint, device
        return cls()


class Refusing(FakeSynthesizer):
    @classmethod
    def load_for_synthesis(cls, checkpoint: Path, device: str = "cpu") -> "Refusing":
        del device
        msg = f"{checkpoint} is no checkpoint of {cls.__name__}"
        raise InvalidInputError(msg)


class Unrelated:
    pass


def register(monkeypatch: pytest.MonkeyPatch, *classes: type) -> None:
    registered: dict[str, Any] = {cls.__name__.lower(): cls for cls in classes}
    monkeypatch.setattr(defect_synthesizer, "registered", lambda _: registered)


def test_models_that_cannot_synthesize_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Unrelated, Refusing, Accepting)
    assert list(synthesizer_classes()) == ["refusing", "accepting"]


def test_the_class_that_accepts_the_checkpoint_loads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Refusing, Unrelated, Accepting)
    assert isinstance(load_synthesizer(Path("model.ckpt")), Accepting)


def test_a_checkpoint_that_no_class_accepts_is_refused_with_their_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Refusing, Unrelated)
    with pytest.raises(InvalidInputError, match=r"^model\.ckpt is no checkpoint of Refusing$"):
        load_synthesizer(Path("model.ckpt"))


def test_without_a_model_that_synthesizes_the_message_names_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Unrelated)
    with pytest.raises(InvalidInputError, match=r"no registered model synthesizes defects; 'anomalib-defects list'"):
        load_synthesizer(Path("model.ckpt"))
