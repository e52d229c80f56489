"""Descriptions of bundles."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch

from anomalib_defect_plugins.deployment.metadata import _weights, count_trained_tests
from anomalib_defect_plugins.inference.scoring import load_module
from anomalib_defect_plugins.models.onestage import OneStage


def test_pretrained_weights_of_a_checkpoint_are_named(tmp_path: Path) -> None:
    model = OneStage(backbone="test_resnet.r160_in1k", pre_trained=False)
    stored = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.6.0"}
    for pre_trained, name in ((True, "test_resnet.r160_in1k"), (False, None)):
        stored["hyper_parameters"] = {**model.hparams, "pre_trained": pre_trained}
        torch.save(stored, tmp_path / "model.ckpt")
        assert dict(_weights(load_module(tmp_path / "model.ckpt", "OneStage")))["pretrained"] == name
    by_default: Any = SimpleNamespace(hparams={"backbone": "mobilenetv2_100", "pre_trained": True})
    assert dict(_weights(by_default)) == {"pretrained": "mobilenetv2_100", "license": "apache-2.0"}


def test_test_images_that_the_split_of_the_run_trained_on_are_counted(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run/weights/lightning/model.ckpt"
    data: Any = SimpleNamespace(test_data=SimpleNamespace(samples=pd.DataFrame({"image_path": ["/a/dent/1.png"]})))
    assert count_trained_tests(data, checkpoint) == count_trained_tests(data, None) == 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run/split.csv").write_text("split,image,label,defect_type\ntrain,dent/1.png,1,dent\n")
    assert count_trained_tests(data, checkpoint) == 1
