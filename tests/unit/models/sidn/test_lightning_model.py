"""Training of SIDN: images that defects are drawn on, the sum of losses, and the ablations."""

import json

import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from lightning.pytorch import Callback, Trainer
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data import TextureDefects
from anomalib_defect_plugins.generators import NoiseDefects, PerturbDefects, ShadingDefects
from anomalib_defect_plugins.models.sidn import SeparationPlot, Sidn
from anomalib_defect_plugins.models.sidn.loss import squared_distances
from anomalib_defect_plugins.models.sidn.separation import own_cosine
from anomalib_defect_plugins.post_processing import set_thresholds
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import fit

SMALL = {"image_size": (64, 64), "backbone": None, "channels": 4, "clusters": 3, "iterations": 3}


class Recorder(NoiseDefects):
    """Generator that stores its input images."""

    name = "noise"

    def __call__(self, images, rng=None):
        self.seen = images
        return super().__call__(images, rng)


def step(model: Sidn, batch: ImageBatch) -> dict[str, float]:
    logged: dict[str, float] = {}
    model.log_dict = lambda values, **_: logged.update({name: float(value) for name, value in values.items()})
    model.training_step(batch, 0)
    return logged


def batch_of(*labels: int) -> ImageBatch:
    torch.manual_seed(0)
    images = torch.rand(len(labels), 1, 64, 64).expand(-1, 3, -1, -1)
    return ImageBatch(image=images, gt_label=torch.tensor(labels))


def test_defects_are_drawn_on_normal_images_only():
    model = Sidn(**SMALL, defect_content=Recorder())
    step(model, batch_of(0, 1, 0, 1, 0))
    assert len(model.defect_content.seen) == 3


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_other_images_stay_unchanged_and_have_empty_masks(share: float):
    torch.manual_seed(0)
    images = torch.rand(200, 3, 32, 32)
    defective, mask, noise = Sidn(**SMALL, defect_content="noise", defect_share=share).draw_defects(images)
    assert not noise.any()
    assert torch.equal((defective != images).flatten(1).any(1), mask.flatten(1).any(1))
    # 200 draws have a standard deviation of 0.03.
    assert mask.flatten(1).any(1).float().mean() == pytest.approx(share, abs=0.1)


def test_noise_in_features_is_for_half_of_the_images_without_a_drawn_defect():
    model = Sidn(**SMALL | {"backbone": "mobilenetv2_100", "pre_trained": False}, feature_noise=1.0)
    images = torch.rand(200, 3, 32, 32)
    defective, mask, noise = model.draw_defects(images)
    drawn, noisy = mask.flatten(1).any(1), noise.flatten(1).any(1)
    assert not (drawn & noisy).any()
    assert torch.equal(defective[~drawn], images[~drawn])
    assert drawn.float().mean() == pytest.approx(0.5, abs=0.1)
    assert noisy.float().mean() == pytest.approx(0.25, abs=0.1)


def test_noise_in_features_is_labelled_and_seen_by_the_branches_only_where_it_is(monkeypatch):
    model = Sidn(
        **SMALL | {"backbone": "mobilenetv2_100", "pre_trained": False, "defect_share": 1.0}, feature_noise=1.0
    )
    seen = {}
    monkeypatch.setattr(model, "losses", lambda output, mask: seen.update(mask=mask) or {"loss": output[0].mean()})
    noise = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    noise[0, :, :16, :16] = True
    monkeypatch.setattr(model, "draw_defects", lambda images: (images, torch.zeros_like(noise), noise))
    clean, noisy = [], []
    for kept, scale in ((clean, 0.0), (noisy, 1.0)):
        model.model.feature_noise = scale
        hook = model.model.texture.register_forward_pre_hook(lambda _, inputs, kept=kept: kept.extend(inputs[1]))
        step(model, batch_of(0, 0))
        hook.remove()
    assert torch.equal(seen["mask"], noise)
    for before, after in zip(clean, noisy, strict=True):
        changed = (before != after).any(1)
        side = max(before.shape[-1] // 4, 1)
        assert changed[0, :side, :side].all()
        changed[0, :side, :side] = False
        assert not changed.any()


def test_negative_feature_noise_is_refused_and_none_is_drawn_without_features():
    with pytest.raises(InvalidInputError, match=r"feature_noise is -1\.0; it must be 0 or more"):
        Sidn(**SMALL, feature_noise=-1.0)
    assert not Sidn(**SMALL).draw_defects(torch.rand(20, 3, 32, 32))[2].any()


def test_loss_is_the_sum_of_its_terms():
    """Eq. 19 and 25; the logged terms include their weights."""
    logged = step(Sidn(**SMALL), batch_of(0, 0))
    total = logged.pop("loss")
    assert set(logged) == {"segmentation_loss", "similarity_loss", "clustering_loss", "center_loss"}
    assert total == pytest.approx(sum(logged.values()), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "missing", "gsrm"),
    [
        ({"clustering": False}, {"clustering_loss", "center_loss"}, False),  # A
        ({"center_separation": False, "gsrm": False}, {"center_loss"}, False),  # B
        ({"gsrm": False}, set(), False),  # C
        ({}, set(), True),  # D
    ],
)
def test_arguments_select_methods_a_to_d_of_table_ii(arguments, missing, gsrm):
    model = Sidn(**SMALL, **arguments)
    logged = step(model, batch_of(0, 0))
    assert {"similarity_loss", "clustering_loss", "center_loss"} - set(logged) == missing
    assert (model.model.texture.gsrm is not None) == gsrm


def test_content_is_any_registered_generator_and_its_name_is_a_hyperparameter():
    model = Sidn(**SMALL)
    assert [type(one) for one in model.defect_content.generators] == [PerturbDefects, ShadingDefects]
    assert model.hparams["defect_content"] == ["perturb", "shading"]
    content = {"class_path": "noise", "init_args": {"std": 0.1}}
    model = Sidn(**SMALL, defect_content=content)
    assert isinstance(model.defect_content, NoiseDefects)
    assert (model.defect_content.std, model.hparams["defect_content"]) == (0.1, "noise")
    with pytest.raises(InvalidInputError, match="generator defect_content 'glitter' cannot be created"):
        Sidn(**SMALL, defect_content="glitter")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"image_size": (64, 70)}, r"image_size is \(64, 70\); the sides must be multiples of 16"),
        ({"crop_size": 50}, "crop_size is"),
        ({"median_size": 4}, "median_size is 4; it must be odd"),
        ({"iterations": 0}, "iterations is 0"),
        ({"channels": -1}, "channels is -1"),
        ({"norm": "layer"}, "norm is 'layer'; it must be one of group, instance, batch"),
        ({"defect_share": 0}, r"defect_share is 0; it must be in \(0, 1\]"),
        ({"score": "mean"}, "score is 'mean'; it must be one of distances, product"),
        ({"score_share": 1.5}, r"score_share is 1.5; it must be in \(0, 1\]"),
    ],
)
def test_an_invalid_argument_is_rejected_in_one_line(arguments, line):
    with pytest.raises(InvalidInputError, match=line) as error:
        Sidn(**{**SMALL, **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("backbone", "highest"), [("test_resnet.r160_in1k", False), (None, True)])
def test_scores_far_above_the_threshold_keep_their_order(backbone, highest):
    model = Sidn(**(SMALL | {"backbone": backbone}))
    post_processor = model.post_processor
    set_thresholds(post_processor, image=2.0 if backbone else 0.2, value_range=(0.1, 3.0))
    scores = post_processor(InferenceBatch(pred_score=torch.tensor([2.5, 5.0, 50.0]), anomaly_map=None)).pred_score
    assert (scores == scores[-1]).all() if highest else scores.diff().gt(0).all()


def test_training_stops_after_its_iterations_and_validates_once(tmp_path):
    write_folder_data(tmp_path / "data")
    validations = []

    class Count(Callback):
        def on_validation_end(self, trainer: Trainer, pl_module: Sidn) -> None:
            validations.append(trainer.global_step)

    run = fit(Sidn(**SMALL), folder_datamodule(tmp_path / "data"), tmp_path, {}, [Count(), SeparationPlot()])
    assert run.engine.trainer.global_step == 3
    assert validations == [3]
    folder = run.folder
    with Image.open(folder / "separation.png") as plot:
        assert min(plot.size) > 400
    numbers = json.loads((folder / "separation.json").read_text())
    # 8 test images with 4 x 4 positions each.
    assert sum(numbers["texture"]["sizes"]) == sum(numbers["defect"]["sizes"]) == 8 * 16
    assert len(numbers["defect"]["radii"]) == 3
    assert -1 <= numbers["center_cosine"] <= 1
    assert not list(folder.glob("*.part"))


# Clusters


@pytest.mark.slow
def test_clusters_are_alive_after_training(tmp_path):
    """The centres of a branch differ, most have features, and what the GSRM adds is seen in the map."""
    torch.manual_seed(0)
    data = TextureDefects(tmp_path / "data", category="gravel", image_size=64, train_batch_size=8, num_workers=0)
    arguments = SMALL | {"backbone": "test_resnet.r160_in1k", "pre_trained": False, "clusters": 12, "iterations": 80}
    model = fit(Sidn(**arguments, crop_size=64, visualizer=False), data, tmp_path, {"limit_val_batches": 0}).model
    network = model.model.eval()
    images = torch.stack([model.pre_processor.transform(data.train_data[n].image) for n in range(16)])
    z, maps = network.extract(images)
    for branch in (network.texture, network.defect):
        assert own_cosine(branch.centers.detach()) < 0.5
        features = branch.extract(z, maps)[-1]
        nearest = squared_distances(features.flatten(2).transpose(1, 2).flatten(0, 1), branch.centers).argmin(-1)
        assert len(nearest.unique()) >= 6
        scaled = branch.scaled(features)
        context, total = branch.gsrm.context(scaled, branch.centers), branch.gsrm(scaled, branch.centers)
        assert context.var() / total.var() > 0.05
        logits = branch(z, maps)[0]
        branch.gsrm.context = lambda features, _: torch.zeros_like(features)
        assert (branch(z, maps)[0] - logits).abs().max() > 0.1 * logits.std()
