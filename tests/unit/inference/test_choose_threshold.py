"""Records of chosen thresholds."""

import numpy as np
import pytest

from anomalib_defect_plugins.inference.choose_threshold import Choice, Rule, choose, summary
from anomalib_defect_plugins.inference.labelled_images import LabelledImage


@pytest.mark.parametrize(
    ("defective", "ending"), [(300, "confidence"), (10, "(the images are too few and only show at most 25.9 %)")]
)
def test_a_record_states_no_more_than_the_images_show(defective: int, ending: str) -> None:
    rule = Rule(max_misses=0.01)
    images = [LabelledImage(f"{i}.png", i < defective) for i in range(defective + 20)]
    scores = np.linspace(1, 0, len(images), dtype=np.float32)
    choice = Choice(rule, choose(rule, images, scores), "raw", images, scores)
    assert choice.record()["rule"].endswith(ending)


@pytest.mark.parametrize(
    ("at", "note"),
    [
        (40, "note: all images are good at this threshold; their scores are 0.25 to 0.75\n"),
        (0.25, "note: all images are defective at this threshold; their scores are 0.25 to 0.75\n"),
        (0.75, ""),
    ],
)
def test_a_threshold_beyond_all_scores_is_noted(at: float, note: str) -> None:
    images = [LabelledImage("bad.png", True), LabelledImage("good.png", False)]
    scores = np.array([0.75, 0.25], np.float32)
    choice = Choice(Rule(at=at), choose(Rule(at=at), images, scores), "probability", images, scores)
    assert summary(choice).endswith(note)
    assert ("note:" in summary(choice)) == bool(note)
