"""The model and the images that ship with the demo."""

import pytest

pytest.importorskip("gradio", reason="gradio is not installed")

from pathlib import Path

from anomalib_defect_plugins.demo.services.example_model import EXAMPLE, example_images, example_title, load_example
from anomalib_defect_plugins.demo.services.predictions import predict_photo
from anomalib_defect_plugins.demo.services.uploads import read_upload


def test_the_example_model_tells_its_three_images_apart_and_they_take_less_than_a_megabyte() -> None:
    model = load_example()
    verdicts = {}
    for path in example_images():
        prediction = predict_photo(model, read_upload(path))
        result = prediction.apply_threshold(model.thresholds.pixel)
        assert result.is_defective == bool(result.regions)
        verdicts[Path(path).stem] = result.is_defective
    assert verdicts == {"crack": True, "good": False, "hole": True}
    assert sum(path.stat().st_size for path in EXAMPLE.iterdir()) < 1_000_000
    assert "image AUROC 0.9" in example_title() or "image AUROC 1.0" in example_title()
