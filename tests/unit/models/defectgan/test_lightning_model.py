"""Training of Defect-GAN: updates of each network, moving average, categories, checkpoints, synthesis."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.engine import Engine
from lightning.pytorch import Callback

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.data.dataclasses import DefectBatch
from anomalib_defect_plugins.layers import NoiseInjection
from anomalib_defect_plugins.models.defectgan.categories import batch_labels, training_types
from anomalib_defect_plugins.testing.runs import differences, fit, seed_all


class Recorder(Callback):
    """Records, for each step, the learning rate, and the weights of both networks and of the average."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_train_start(self, trainer, pl_module) -> None:
        """Record the weights before the first step."""
        self._weights(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *_: object) -> None:
        """Record the learning rate and the weights after a step."""
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self._weights(pl_module)

    def _weights(self, model) -> None:
        networks = {"d": model.discriminator, "g": model.generator, "average": model.model.generator}
        self.weights.append(
            {name: torch.nn.utils.parameters_to_vector(net.parameters()).clone() for name, net in networks.items()}
        )

    def updated(self, name: str) -> list[bool]:
        """Return, for each step, whether it changed the weights of a network."""
        pairs = zip(self.weights, self.weights[1:], strict=False)
        return [not torch.equal(before[name], after[name]) for before, after in pairs]


def train(model, folder, path, *callbacks, ckpt_path=None, **data):
    seed_all(0)
    return fit(model, WithDefects(folder, **{"real": 2, "masks": False} | data), path, {}, callbacks, ckpt_path)


def saved(path):
    return next(path.rglob("last.ckpt"))


def test_the_discriminator_is_updated_in_each_step_and_the_generator_in_every_third(tiny, folder, tmp_path):
    recorder = Recorder()
    run = train(tiny(iterations=7, critic_updates=3), folder, tmp_path, recorder)
    assert recorder.updated("d") == [True] * 7
    assert recorder.updated("g") == recorder.updated("average") == [False, False, True, False, False, True, False]
    assert run.model.step == 7
    assert run.engine.trainer.global_step == 7 + 2


def test_the_learning_rate_falls_linearly_from_the_first_step_to_the_last(tiny, folder, tmp_path):
    recorder = Recorder()
    train(tiny(iterations=5, learning_rate=9e-3, final_learning_rate=1e-3), folder, tmp_path, recorder)
    assert recorder.rates == pytest.approx([9e-3, 7e-3, 5e-3, 3e-3, 1e-3])


def test_the_average_adapts_quickly_at_first_and_is_used_for_inspection(tiny, folder, tmp_path):
    recorder = Recorder()
    run = train(tiny(iterations=4, ema_decay=0.13), folder, tmp_path, recorder)
    start, first, second = (recorder.weights[step] for step in (0, 2, 4))
    # Update 1 keeps 1/11 of the average, update 2 keeps ema_decay = 0.13, which is less than 2/12.
    expected = start["average"] / 11 + 10 / 11 * first["g"]
    torch.testing.assert_close(first["average"], expected)
    expected = 0.13 * expected + 0.87 * second["g"]
    torch.testing.assert_close(second["average"], expected)
    assert run.model.model.generator is not run.model.generator
    assert not any(weight.requires_grad for weight in run.model.model.parameters())


def test_the_weight_of_the_map_size_exceeds_1_only_after_its_warm_up(tiny, folder, tmp_path):
    model = tiny(map_size_weight=5, map_size_warmup=3)
    assert [model.weights.at(step).map_size for step in range(5)] == [1, 1, 1, 5, 5]
    assert model.weights.at(0)._replace(map_size=5) == model.weights == model.weights.at(3)
    for arguments in ({"map_size_weight": 0.5}, {"map_size_weight": 5, "spatial_constraint": False}):
        model = tiny(map_size_warmup=3, **arguments)
        assert model.weights.at(0) == model.weights.at(3)

    def weights(name, **arguments):
        return train(tiny(iterations=4, **arguments), folder, tmp_path / name).model.state_dict()

    at_1, within = weights("1"), weights("within", map_size_weight=5, map_size_warmup=4)
    assert not differences(at_1, within)
    assert differences(at_1, weights("after", map_size_weight=5, map_size_warmup=2))


def test_a_resumed_run_continues_at_its_step(tiny, folder, tmp_path):
    whole, recorder = Recorder(), Recorder()
    train(tiny(iterations=9), folder, tmp_path / "whole", whole)
    train(tiny(iterations=6), folder, tmp_path / "part")
    train(tiny(iterations=9), folder, tmp_path / "resumed", recorder, ckpt_path=saved(tmp_path / "part"))
    assert recorder.rates == whole.rates[6:]
    assert recorder.updated("g") == whole.updated("g")[6:]


def test_targets_are_the_labels_of_the_paired_images_except_for_the_identity_share(tiny):
    labels = torch.tensor([[0.0, 0], [0, 0], [1, 0], [0, 1]])
    assert tiny(identity_share=0)._targets(labels, rng(0)).tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]
    many = torch.eye(2).repeat_interleave(1000, 0)
    unchanged = (tiny(identity_share=0.3)._targets(many, rng(0)) == many).all(1).float().mean()
    assert unchanged == pytest.approx(0.3, abs=0.05)  # five standard deviations


def test_images_are_flipped_or_augmented_by_the_generator_of_the_step_only(tiny):
    images = torch.rand(4, 3, 32, 36)
    values = images.flatten(1).sort().values
    for augment in (False, True):
        model, state = tiny(augment=augment), torch.get_rng_state()
        first, same, other = (model._augmented(images, rng(seed)) for seed in (0, 0, 1))
        assert torch.equal(first, same)
        assert not torch.equal(first, other)
        assert first.min() >= 0
        assert first.max() <= 1
        assert torch.equal(first.flatten(1).sort().values, values) != augment
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "arguments",
    [
        {"spatial_control": False},
        {"noise_injection": False},
        {"layer_composition": False},
        {"spatial_constraint": False},
        {"grey": True, "augment": True},
        {"multi_label": True},
        {"critic_updates": 1, "residual_blocks": 0, "discriminator_layers": 2, "discriminator_channels": 8},
    ],
    ids=lambda arguments: "-".join(arguments),
)
def test_every_variant_trains_and_its_checkpoint_loads(tiny, folder, tmp_path, arguments):
    model = train(tiny(**arguments, iterations=2), folder, tmp_path).model.eval()
    loaded = type(model).load_from_checkpoint(saved(tmp_path), evaluator=False, visualizer=False).eval()
    image = torch.rand(1, 3, 40, 40)
    torch.testing.assert_close(loaded(image).pred_score, model(image).pred_score)


def test_maps_are_not_constrained_without_composition_or_when_it_is_switched_off(tiny):
    assert tiny().weights[3:5] == (5.0, 1.0)
    for arguments in ({"spatial_constraint": False}, {"layer_composition": False}):
        assert tiny(**arguments).weights[3:5] == (0, 0)


def data_module(*types, synthetic=None):
    """Return a stand-in with the attributes of a data module that the model reads."""
    table = pd.DataFrame({"label_index": [int(name != "good") for name in types], "defect_type": types})
    train = SimpleNamespace(samples=table)
    generator = synthetic and SimpleNamespace(name=synthetic)
    return SimpleNamespace(train_data=train, synthetic=generator, synthetic_ratio=0.5, train_on_real=True, name="Data")


@pytest.mark.parametrize(
    ("data", "categories", "multi_label"),
    [
        (data_module("dent", "good", "crack", "dent"), ("crack", "dent"), False),
        (data_module("crack+rust", "good", "crack"), ("crack", "rust"), True),
        (data_module("good", "crack", synthetic="noise"), ("crack", "noise"), False),
    ],
)
def test_categories_are_the_defect_types_of_the_training_set(tiny, data, categories, multi_label):
    model = tiny()
    model._learn_categories(training_types(data), data.name)
    assert (model.categories, model.multi_label) == (categories, multi_label)
    assert model.hparams.categories == list(categories)
    # With one type per image, there is an additional class "normal".
    assert model.discriminator.classes.out_channels == len(categories) + (not multi_label)


def test_explicit_categories_keep_their_order_and_exclude_other_types(tiny):
    model = tiny(categories=["rust", "crack"])
    model._learn_categories([("crack",)], "Data")
    assert model.categories == ("rust", "crack")
    with pytest.raises(ConfigurationError, match=r"of Data has defects of type dent.*knows rust, crack"):
        model._learn_categories([("crack",), ("dent",)], "Data")


def test_labels_of_a_batch_are_1_for_its_types():
    names = ["good", "crack", "crack+rust"]
    batch = DefectBatch(image=torch.rand(3, 3, 8, 8), gt_label=torch.tensor([0, 1, 1]), defect_type=names)
    assert batch_labels(batch, ("crack", "dent", "rust")).tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 1]]


def test_a_data_module_without_defect_types_has_one_category():
    table = pd.DataFrame({"label_index": [0, 1, 1]})
    assert training_types(SimpleNamespace(train_data=SimpleNamespace(samples=table))) == [("defect",)]
    batch = ImageBatch(image=torch.rand(2, 3, 8, 8), gt_label=torch.tensor([0, 1]))
    assert batch_labels(batch, ("defect",)).tolist() == [[0], [1]]


def test_synthetic_defects_are_a_separate_category(tiny, folder, tmp_path):
    run = train(tiny(iterations=2), folder, tmp_path, real=0, synthetic="cutpaste")
    assert run.model.categories == ("cutpaste",)


def test_a_model_without_categories_takes_them_from_the_checkpoint_it_tests(tiny, folder, tmp_path):
    trained = train(tiny(evaluator=True), folder, tmp_path).model
    assert trained.categories == ("abnormal",)
    fresh, data = tiny(evaluator=True), WithDefects(folder, real=2, masks=False)
    engine = Engine(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path / "test")
    assert engine.test(fresh, datamodule=data, ckpt_path=saved(tmp_path), verbose=False)
    assert fresh.categories == ("abnormal",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (36, 36)}, r"the checkpoint has image_size \[32, 36\], this model \[36, 36\]"),
        ({"categories": ["crack", "abnormal"]}, r"categories \['abnormal'\], this model \['crack', 'abnormal'\]"),
        ({"channels": 8}, "the checkpoint has channels 4, this model 8"),
    ],
)
def test_an_incompatible_checkpoint_is_refused_in_one_line(tiny, folder, tmp_path, arguments, message):
    train(tiny(), folder, tmp_path / "one")
    with pytest.raises(ConfigurationError, match=message) as error:
        train(tiny(**arguments), folder, tmp_path / "other", ckpt_path=saved(tmp_path / "one"))
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_model_is_refused(tiny):
    with pytest.raises(ConfigurationError, match="the checkpoint is of another model"):
        tiny().on_load_checkpoint({"hyper_parameters": {"image_size": (32, 36)}})


@pytest.fixture
def noisy(tiny):
    """Untrained model with two categories and strong noise."""
    torch.manual_seed(0)
    model = tiny(categories=["crack", "dent"])
    for module in model.model.modules():
        if isinstance(module, NoiseInjection):
            module.strength.data.fill_(0.5)
    return model


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_samples_of_one_seed_are_identical_and_of_another_differ(noisy):
    images, control = torch.rand(2, 3, 50, 40), torch.tensor([[1.0, 0], [0, 1]])
    first, again, other = (noisy.synthesize(images, control, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.maps, again.maps)
    assert not torch.equal(first.images, other.images)
    assert (first.images.shape, first.maps.shape) == ((2, 3, 32, 36), (2, 1, 32, 36))
    for values in first:
        assert 0 <= values.min() <= values.max() <= 1


def test_a_label_vector_is_a_constant_control_map(noisy):
    images, label = torch.rand(1, 3, 32, 36), torch.tensor([[0.0, 1.0]])
    everywhere = label[:, :, None, None].expand(-1, -1, 20, 24)
    expected = noisy.synthesize(images, label)
    torch.testing.assert_close(noisy.synthesize(images, everywhere).images, expected.images, atol=1e-5, rtol=0)


def test_restoration_is_a_control_map_of_zeros(noisy):
    images = torch.rand(2, 3, 50, 40)
    for restored, synthesized in zip(noisy.restore(images), noisy.synthesize(images, torch.zeros(2, 2)), strict=True):
        torch.testing.assert_close(restored, synthesized)


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (1, 2, 8)])
def test_a_control_map_of_another_shape_is_refused(noisy, shape):
    with pytest.raises(InvalidInputError, match="a control map for 1 image and 2 categories is"):
        noisy.synthesize(torch.rand(1, 3, 32, 36), torch.zeros(shape))


def test_data_loaders_are_refused(tiny, folder, tmp_path):
    data = WithDefects(folder, real=2, masks=False)
    data.setup()
    engine = Engine(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    with pytest.raises(ConfigurationError, match="pass one as datamodule"):
        engine.fit(tiny(), train_dataloaders=data.train_dataloader())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (30, 32)}, r"image_size is \(30, 32\); the sides must be multiples of 4 and at least 32"),
        ({"image_size": (16, 32)}, "the sides must be multiples of 4 and at least 32"),
        ({"discriminator_layers": 6}, r"discriminator_layers is 6; at an image size of \(32, 36\) it must be 1 to 5"),
        ({"categories": "crack"}, "categories is 'crack'; it must be a list of different defect types"),
        ({"categories": ["crack", "crack"]}, "it must be a list of different defect types"),
        ({"identity_share": -0.1}, r"identity_share is -0.1; it must be in \[0, 1\)"),
        ({"ema_decay": 1.0}, r"ema_decay is 1.0; it must be in \[0, 1\)"),
        ({"residual_blocks": -1}, "residual_blocks is -1; it must be 0 or more"),
        ({"map_size_warmup": -1}, "map_size_warmup is -1; it must be 0 or more"),
        ({"score_share": 1.5}, r"score_share is 1.5; it must be in \(0, 1\]"),
        ({"critic_updates": 0}, "critic_updates is 0; it must be more than 0"),
    ],
)
def test_an_invalid_argument_is_refused_in_one_line(tiny, arguments, message):
    with pytest.raises(InvalidInputError, match=message) as error:
        tiny(**arguments)
    assert "\n" not in str(error.value)


def test_all_options_train_together_and_a_checkpoint_restores_them(tiny, folder, tmp_path):
    options = {"map_bias": -3.0, "score_per_class": True, "diff_augment": ["color", "translation"], "paired_steps": 4}
    seen = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_: object) -> None:
            """Record the latest value of each loss after a step."""
            seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    recorder = Recorder()
    run = train(tiny(iterations=6, **options), folder, tmp_path, recorder, Losses())
    assert recorder.updated("d") == [True] * 6
    assert recorder.updated("g") == [False, True] * 3
    assert not {"real_class_loss", "fake_class_loss"} & set().union(*seen)
    for name in ("paired_loss", "paired_map_loss"):  # of the two updates of the generator within four steps
        assert seen[1][name] != seen[3][name] == seen[5][name]
    loaded = type(run.model).load_for_synthesis(saved(tmp_path))
    assert not differences(loaded.state_dict(), run.model.state_dict())
    assert {name: loaded.hparams[name] for name in options} == options
    assert loaded.generator.map_bias == -3
    assert loaded.label_sets == run.model.label_sets == {"abnormal": 2}
