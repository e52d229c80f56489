"""Training of ISU-GAN: gradients of each loss, the switch from SSIM to L1, resumption, batches and visualisation."""

import pytest
import torch
from anomalib.data import DepthBatch, ImageBatch
from anomalib.engine import Engine
from lightning.pytorch import Callback
from PIL import Image
from torch import nn

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.data.dataclasses import DefectBatch
from anomalib_defect_plugins.models.components.unpaired_loader import flip
from anomalib_defect_plugins.models.isugan.dataclasses import RepairedBatch, add_repaired
from anomalib_defect_plugins.models.isugan.lightning_model import frozen
from anomalib_defect_plugins.models.isugan.post_processing import ImageOtsuPostProcessor
from anomalib_defect_plugins.models.isugan.visualizer import RepairVisualizer
from anomalib_defect_plugins.post_processing import UnitPostProcessor
from anomalib_defect_plugins.testing.runs import fit, seed_all


class Recorder(Callback):
    """Records, for each step, whether the losses are structural, and the learning rate."""

    def __init__(self) -> None:
        self.structural: list[bool] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, *_: object) -> None:
        """Record both."""
        self.structural.append(pl_module.structural)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def train(model, folder, path, *callbacks, ckpt_path=None):
    seed_all(0)
    return fit(model, WithDefects(folder, real=2, masks=False), path, {}, callbacks, ckpt_path)


def pair(seed=0):
    torch.manual_seed(seed)
    return torch.rand(2, 2, 1, 24, 32) * 2 - 1


def gradients(model, *names):
    """Return the networks that receive a gradient from the sum of some losses."""
    losses = model.losses(*pair(), torch.Generator().manual_seed(0))
    model.zero_grad()
    sum(losses[name] for name in names).backward()
    networks = {"g_n2p": model.model, "g_p2n": model.g_p2n, "d_p": model.d_p, "d_n": model.d_n}
    return {
        name for name, net in networks.items() if any(w.grad is not None and w.grad.any() for w in net.parameters())
    }


@pytest.fixture
def model(tiny, monkeypatch):
    model = tiny()
    monkeypatch.setattr(type(model), "global_step", 3)
    return model


@pytest.mark.parametrize(
    ("loss", "networks"),
    [
        ("adversarial_loss", {"g_n2p", "g_p2n"}),
        ("cycle_loss", {"g_n2p", "g_p2n"}),
        ("identity_loss", {"g_n2p"}),
        ("discriminator_loss", {"d_p", "d_n"}),
    ],
)
def test_each_loss_has_gradients_for_its_own_networks_only(model, loss, networks):
    assert gradients(model, loss) == networks


def test_a_step_reaches_every_weight_with_one_backward_pass(tiny, monkeypatch):
    # Plain data-parallel training waits for a gradient of every weight.
    model = tiny(involution=True)
    monkeypatch.setattr(type(model), "global_step", 0)
    sum(model.losses(*pair(), torch.Generator()).values()).backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_the_paired_loss_has_gradients_for_the_repairing_generator_only(tiny, monkeypatch):
    model = tiny(paired_weight=1.0)
    model.paired_content = lambda images, rng: (images.flip(-1), images > 0)  # generators need images of 32 pixels
    monkeypatch.setattr(type(model), "global_step", 3)
    assert gradients(model, "paired_loss") == {"g_n2p"}


def test_noise_in_the_cycle_changes_the_cycle_loss_only(tiny, monkeypatch):
    plain, noisy = tiny(), tiny(cycle_noise=0.5)
    noisy.load_state_dict(plain.state_dict())
    monkeypatch.setattr(type(plain), "global_step", 3)
    results = [model.losses(*pair(), torch.Generator().manual_seed(0)) for model in (plain, noisy)]
    changed = {name for name, value in results[0].items() if not torch.equal(value, results[1][name])}
    assert changed == {"cycle_loss"}


class Constant(nn.Module):
    """Generator that adds a constant to an image."""

    channels = 1

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.tensor(number))

    def forward(self, image):
        return image + self.number


class Mean(nn.Module):
    """Discriminator whose score is the mean of an image."""

    def forward(self, image):
        return image.mean((1, 2, 3))


def test_the_losses_are_those_of_equations_8_to_11_with_their_weights(model):
    # p is 0, n is 0.2; G_n2p subtracts 0.3, G_p2n adds 0.5, scores are means. So fake_p = -0.1 and fake_n = 0.5.
    model.model.generator, model.g_p2n, model.d_p, model.d_n = Constant(-0.3), Constant(0.5), Mean(), Mean()
    p, n = torch.zeros(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.2)
    losses = {name: value.item() for name, value in model.losses(p, n, torch.Generator()).items()}
    assert losses == pytest.approx(
        {
            "adversarial_loss": (0.5 - 1) ** 2 + (-0.1 - 1) ** 2,
            "cycle_loss": 10 * (0.2 + 0.2),  # p is reconstructed as 0 + 0.5 - 0.3, n as 0.2 - 0.3 + 0.5
            "identity_loss": 5 * 0.3,
            "discriminator_loss": 0.5 * ((0 - 1) ** 2 + 0.1**2 + (0.2 - 1) ** 2 + 0.5**2),
        },
        rel=1e-5,
    )


def test_the_paired_loss_compares_the_repair_of_a_synthetic_defect_with_its_source(tiny):
    model = tiny(paired_weight=1.0)
    model.model.generator = Constant(-0.3)
    model.paired_content = lambda images, rng: (images + 0.1, images > 0)  # 0.5 to 0.6, which is 0.2 in [-1, 1]
    loss = model.paired_loss(torch.zeros(2, 1, 16, 16), torch.Generator())
    assert loss.item() == pytest.approx(0.1)  # 0.2 - 0.3 against 0


def test_the_error_of_repaired_normal_images_is_that_of_equation_16(tiny):
    model = tiny()
    model.model.generator = Constant(0.2)  # 0.1 in [0, 1]
    image = torch.full((3, 3, 24, 32), 0.5)
    image[2] = 0.0
    batch = ImageBatch(image=image, gt_label=torch.tensor([0, 0, 1]))
    model.test_step(batch, 0)
    assert model.repair_error.compute().item() == pytest.approx(0.01)


def test_the_switch_from_ssim_to_l1_happens_at_its_step_and_rates_fall_over_the_second_half(tiny, folder, tmp_path):
    recorder = Recorder()
    train(tiny(iterations=10, ssim_share=0.3, learning_rate=1.0e-3), folder, tmp_path, recorder)
    assert recorder.structural == [True] * 3 + [False] * 7
    assert recorder.rates == pytest.approx([1e-3] * 6 + [0.8e-3, 0.6e-3, 0.4e-3, 0.2e-3])


def test_a_resumed_run_is_past_the_switch_and_has_its_pools(tiny, folder, tmp_path):
    settings = {"iterations": 8, "ssim_share": 0.5, "pool_size": 3}
    first = train(tiny(**settings | {"iterations": 6}), folder, tmp_path / "first")
    checkpoint = next((tmp_path / "first").rglob("last.ckpt"))
    recorder, resumed = Recorder(), tiny(**settings)
    resumed.on_load_checkpoint(torch.load(checkpoint, weights_only=True))
    for name, pool in resumed.pools.items():
        assert len(pool.images) == 3
        assert all(map(torch.equal, pool.images, first.model.pools[name].images))
    train(resumed, folder, tmp_path / "resumed", recorder, ckpt_path=checkpoint)
    assert recorder.structural == [False] * 2


def test_the_data_modules_own_loader_is_restored_when_training_has_ended_or_failed(tiny, folder, tmp_path):
    data = WithDefects(folder, real=2, masks=False)
    fit(tiny(), data, tmp_path / "good", {})
    assert "train_dataloader" not in vars(data)

    class Fail(Callback):
        def on_train_batch_start(self, *_: object) -> None:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(tiny(), data, tmp_path / "bad", {}, [Fail()])
    assert "train_dataloader" not in vars(data)


def test_data_loaders_are_refused(tiny, folder, tmp_path):
    data = WithDefects(folder, real=2, masks=False)
    data.setup()
    engine = Engine(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    with pytest.raises(ConfigurationError, match="pass one as datamodule"):
        engine.fit(tiny(), train_dataloaders=data.train_dataloader())


def test_images_are_unchanged_or_flipped_either_way_with_equal_probability():
    image = torch.arange(6.0).reshape(1, 2, 3)
    forms = [image, image.flip(-1), image.flip(-2)]
    flipped = flip(image.expand(900, 1, 2, 3), torch.Generator().manual_seed(0))
    counts = [sum(torch.equal(result, form) for result in flipped) for form in forms]
    assert sum(counts) == 900
    assert min(counts) > 250  # 300 expected, standard deviation 14


def test_networks_are_unfrozen_after_an_error():
    network = nn.Linear(2, 2)
    inside = []

    def fail() -> None:
        with frozen(network):
            inside.extend(weight.requires_grad for weight in network.parameters())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert inside == [False, False]
    assert all(weight.requires_grad for weight in network.parameters())


@pytest.mark.parametrize("batch_class", [ImageBatch, DefectBatch])
def test_batches_get_the_repaired_images_in_place(batch_class):
    batch = batch_class(image=torch.rand(2, 3, 8, 8))
    add_repaired(batch, torch.rand(2, 1, 8, 8))
    assert isinstance(batch, RepairedBatch)
    assert isinstance(batch, batch_class)
    assert batch.to_numpy().repaired.shape == (2, 1, 8, 8)


def test_batches_of_another_class_keep_it():
    batch = DepthBatch(image=torch.rand(2, 3, 8, 8))
    add_repaired(batch, torch.rand(2, 1, 8, 8))
    assert type(batch) is DepthBatch
    assert batch.repaired.shape == (2, 1, 8, 8)


def test_visualisations_show_the_repaired_image_before_the_overlays(tmp_path):
    Image.new("RGB", (20, 20), "white").save(tmp_path / "white.png")
    batch = ImageBatch(
        image=torch.ones(1, 3, 16, 16), image_path=[str(tmp_path / "white.png")], anomaly_map=torch.zeros(1, 16, 16)
    )
    visualizer = RepairVisualizer(field_size=(32, 32), text_config={"enable": False})
    without = visualizer.visualize(batch)
    add_repaired(batch, torch.full((1, 1, 16, 16), 0.5))
    image = visualizer.visualize(batch)
    assert image.width == without.width + 32
    assert [image.getpixel((x, 16)) for x in (16, 48)] == [(255, 255, 255), (127, 127, 127)]


def test_the_mask_rule_is_chosen_by_name(tiny):
    assert isinstance(tiny().post_processor, ImageOtsuPostProcessor)
    assert type(tiny(mask_threshold="adaptive").post_processor) is UnitPostProcessor


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 6}, "width is 6; it must be a multiple of 4"),
        ({"image_size": (8, 32)}, "image_size is 8; it must be at least 16"),
        ({"ssim_share": 1.5}, r"ssim_share is 1.5; it must be in \[0, 1\]"),
        ({"score_share": 0}, r"score_share is 0; it must be in \(0, 1\]"),
        ({"window_size": 8}, "window_size is 8; it must be odd"),
        ({"mask_threshold": "mean"}, "mask_threshold is 'mean'; it must be one of otsu, adaptive"),
        ({"pool_size": -1}, "pool_size is -1; it must be 0 or more"),
        ({"iterations": 0}, "iterations is 0; it must be more than 0"),
    ],
)
def test_an_invalid_argument_is_refused_in_one_line(tiny, arguments, message):
    with pytest.raises(InvalidInputError, match=message) as error:
        tiny(**arguments)
    assert "\n" not in str(error.value)
