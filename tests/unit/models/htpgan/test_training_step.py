"""One training step of HTP-GAN: inputs of the networks, and changes to their weights."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from anomalib.data.utils import read_image
from lightning.pytorch import Callback
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.data import TextureDefects
from anomalib_defect_plugins.models.htpgan import HtpGan, lightning_model
from anomalib_defect_plugins.testing.runs import fit, seed_all

CONFIGS = Path(__file__).parents[4] / "configs/htpgan"

QUIET: dict[str, Any] = {"evaluator": False, "visualizer": False}

STEPS = 3
SCALES = 2


class Recorder:
    """Records inputs and outputs of the networks during training, and the arguments of both losses."""

    def __init__(self, model: HtpGan, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = model
        self.discriminated: list[tuple[int, Tensor, Tensor]] = []  # scale, images, logits
        self.generated: list[list[tuple[Tensor, Tensor]]] = []  # noise and image of each generation, coarse to fine
        self.losses: list[tuple[str, tuple[Tensor, ...], float]] = []
        self.totals: list[float] = []
        for scale, network in enumerate(model.model.discriminators):
            network.register_forward_hook(self._record_discriminator(scale))
        for scale, network in enumerate(model.model.generators):
            network.register_forward_hook(self._record_generator(scale))
        for name in ("discriminator_loss", "generator_loss"):
            monkeypatch.setattr(lightning_model, name, self._recording(name, getattr(lightning_model, name)))
        backward = model.manual_backward
        monkeypatch.setattr(model, "manual_backward", lambda loss: (self.totals.append(loss.item()), backward(loss)))

    def real(self, scale: int, reference: str) -> Tensor:
        """Return the reference image as the expected input of the discriminator of a scale."""
        image = self.model.pre_processor.transform(read_image(reference, as_tensor=True)[None])
        return self.model.model.at_scale(image, scale)

    def _record_discriminator(self, scale: int) -> Callable[..., None]:
        def hook(network: torch.nn.Module, inputs: tuple[Tensor], logits: Tensor) -> None:
            if network.training:
                self.discriminated.append((scale, inputs[0].detach().clone(), logits.detach().clone()))

        return hook

    def _record_generator(self, scale: int) -> Callable[..., None]:
        def hook(network: torch.nn.Module, inputs: tuple[Tensor, Tensor], image: Tensor) -> None:
            if scale == 0:
                self.generated.append([])
            self.generated[-1].append((inputs[0].detach().clone(), image.detach().clone()))

        return hook

    def _recording(self, name: str, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: Tensor) -> Tensor:
            loss = original(*arguments)
            self.losses.append((name, tuple(value.detach().clone() for value in arguments), loss.item()))
            return loss

        return call


@pytest.fixture
def record(tiny, datamodule, tmp_path, monkeypatch) -> Callable[..., Recorder]:
    """Return a function that trains a tiny model and returns its recorder."""

    def run(*callbacks: Callback, **arguments: Any) -> Recorder:
        seed_all(0)
        model = tiny(**{"num_scales": SCALES, "iterations_per_scale": STEPS} | arguments)
        recorder = Recorder(model, monkeypatch)
        fit(model, datamodule, tmp_path / "results", {}, callbacks)
        return recorder

    return run


@pytest.mark.parametrize("blend_fakes", [True, False])
def test_the_discriminator_sees_real_and_generated_in_one_batch_in_both_steps(record, root, blend_fakes):
    # In separate passes, batch norm would remove the difference between them, and the model would not learn.
    recorder = record(reference=1, blend_fakes=blend_fakes)
    assert [scale for scale, _, _ in recorder.discriminated] == [0] * 2 * STEPS + [1] * 2 * STEPS  # D, then G
    for scale, images, _ in recorder.discriminated:
        real = recorder.real(scale, root / "normal" / "001.png")
        assert len(images) == 2
        assert torch.allclose(images[:1], real, atol=1e-5)
        assert (images[1:] - real).abs().mean() > 0.05


def test_both_losses_use_the_logits_of_the_joint_batch(record):
    recorder = record()
    for (_, _, logits), (name, arguments, _) in zip(recorder.discriminated, recorder.losses, strict=True):
        if name == "discriminator_loss":
            assert torch.equal(torch.cat(arguments[:2]), logits)
        else:
            assert torch.equal(arguments[0], logits[1:])
    assert [name for name, _, _ in recorder.losses] == ["discriminator_loss", "generator_loss"] * STEPS * SCALES


def test_separate_passes_would_change_the_logits(record):
    recorder = record()
    scale, images, _ = recorder.discriminated[-1]
    discriminator = recorder.model.model.discriminators[scale].train()
    separate = torch.cat([discriminator(image[None]) for image in images])
    assert (discriminator(images) - separate).abs().mean() > 0.05


@pytest.mark.parametrize("blend_fakes", [True, False])
def test_the_discriminator_sees_blended_or_plain_generated_images(record, blend_fakes):
    recorder = record(blend_fakes=blend_fakes)
    for step in range(STEPS * SCALES):
        _, images, _ = recorder.discriminated[2 * step]
        _, (_, _, share), _ = recorder.losses[2 * step]
        fake = recorder.generated[3 * step][-1][1]  # each step generates for D, for G and for the reconstruction
        assert torch.allclose(images[1:], fake + share * (images[:1] - fake), atol=1e-5)
        if blend_fakes:
            assert share.shape == (1, 1, *images.shape[-2:])
            assert 0 <= share.min() < share.max() <= 1
        else:
            assert torch.equal(share, torch.zeros_like(share))


def test_the_adversarial_loss_of_the_generator_uses_its_plain_image(record):
    recorder = record(blend_fakes=True)
    for step in range(STEPS * SCALES):
        _, images, _ = recorder.discriminated[2 * step + 1]
        assert torch.equal(images[1:], recorder.generated[3 * step + 1][-1][1])


def test_noise_is_drawn_for_each_network_and_step_with_unit_deviation_at_every_scale(record):
    recorder = record()
    adversarial = [chain for index, chain in enumerate(recorder.generated) if index % 3 < 2]
    for scale in range(SCALES):
        noises = [chain[scale][0] for chain in adversarial if len(chain) > scale]
        assert len({tuple(noise.flatten().tolist()) for noise in noises}) == len(noises)
        assert float(torch.stack(noises).std()) == pytest.approx(1, abs=0.05)


def test_the_reconstruction_has_fixed_noise_at_the_coarsest_scale_and_none_at_finer_scales(record):
    recorder = record()
    chains = recorder.generated[2::3]
    assert len(chains) == STEPS * SCALES
    for chain in chains:
        assert torch.equal(chain[0][0], chains[0][0][0])
        assert not any(noise.any() for noise, _ in chain[1:])
    assert float(chains[0][0][0].std()) == pytest.approx(1, abs=0.1)


def test_the_generator_loss_is_adversarial_plus_reconstruction(record, root):
    recorder = record(reference="000.png", reconstruction_weight=7.0)
    for step in range(STEPS * SCALES):
        _, _, adversarial = recorder.losses[2 * step + 1]
        scale = step // STEPS
        error = recorder.generated[3 * step + 2][-1][1] - recorder.real(scale, root / "normal" / "000.png")
        expected = adversarial + 7 * float(error.square().mean())
        assert recorder.totals[2 * step + 1] == pytest.approx(expected, rel=1e-4)


def weights(networks: torch.nn.ModuleList) -> list[dict[str, Tensor]]:
    return [copy.deepcopy(dict(network.named_parameters())) for network in networks]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(values, other[name]) for name, values in one.items())


class Snapshots(Callback):
    """Records the weights before training and after each step, and the learning rates of each step."""

    def __init__(self) -> None:
        self.weights: list[tuple[list[dict[str, Tensor]], ...]] = []
        self.rates: list[list[float]] = []

    def on_train_start(self, trainer, pl_module) -> None:
        """Record the initial weights."""
        self._record(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *_: object) -> None:
        """Record weights and learning rates after a step."""
        self._record(pl_module)
        current = slice(2 * trainer.current_epoch, 2 * trainer.current_epoch + 2)
        self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers[current]])

    def _record(self, pl_module) -> None:
        self.weights.append((weights(pl_module.model.discriminators), weights(pl_module.model.generators)))


def test_a_step_changes_both_networks_of_its_scale_and_no_other(record):
    snapshots = Snapshots()
    record(snapshots)
    for step in range(1, SCALES * STEPS):
        before, after = snapshots.weights[step - 1], snapshots.weights[step]
        scale = (step - 1) // STEPS
        if step == STEPS:
            continue  # the end of a scale also initialises the next
        for old, new in zip(before, after, strict=True):
            assert [same(old[n], new[n]) for n in range(SCALES)] == [n != scale for n in range(SCALES)]


def test_each_scale_is_initialised_from_the_previous_one(record):
    snapshots = Snapshots()
    record(snapshots)
    for networks in snapshots.weights[STEPS]:
        assert same(networks[0], networks[1])
    for networks in snapshots.weights[0]:
        assert not same(networks[0], networks[1])


def test_learning_rates_fall_to_a_tenth_in_the_last_fifth_of_every_scale(record):
    snapshots = Snapshots()
    record(snapshots, iterations_per_scale=10, discriminator_lr=1e-3, generator_lr=1e-4)
    expected = ([[1e-3, 1e-4]] * 8 + [[1e-4, 1e-5]] * 2) * SCALES
    assert torch.allclose(torch.tensor(snapshots.rates), torch.tensor(expected))


# Options that are not in the paper, or that it leaves open


def test_each_step_may_update_both_networks_several_times_with_new_noise(record):
    recorder = record(discriminator_steps=3, generator_steps=2)
    assert [name for name, _, _ in recorder.losses] == (["discriminator_loss"] * 3 + ["generator_loss"] * 2) * (
        STEPS * SCALES
    )
    fakes = [images[1:].flatten().tolist() for _, images, _ in recorder.discriminated]
    assert len({tuple(fake) for fake in fakes}) == len(fakes)


def test_without_a_learning_rate_generators_stay_as_they_are_initialised(record):
    snapshots = Snapshots()
    recorder = record(snapshots, generator_lr=0)
    assert {name for name, _, _ in recorder.losses} == {"discriminator_loss"}
    first = snapshots.weights[0][1][0]
    assert all(same(first, networks[0]) for _, networks in snapshots.weights)
    assert same(first, snapshots.weights[-1][1][1])  # the next scale starts from the previous one


def test_noise_of_finer_scales_follows_the_error_that_the_coarser_ones_leave(record, root):
    recorder = record(noise_amplitude=0.5, reference=1)
    amplitudes = recorder.model.model.noise_amplitudes
    real = recorder.real(1, root / "normal" / "001.png")
    start = next(
        chain for chain in recorder.generated if len(chain) == 2
    )  # the first of scale 1: for its discriminator
    coarse = recorder.generated[3 * STEPS][0][1]  # the reconstruction of scale 0 before scale 1 is trained
    error = (functional.interpolate(coarse, real.shape[-2:], mode="bicubic") - real).square().mean().sqrt()
    assert amplitudes.tolist() == pytest.approx([1, 0.5 * error.item()], rel=1e-3)
    assert float(start[1][0].std()) == pytest.approx(float(amplitudes[1]), rel=0.15)


def test_joint_scales_are_trained_together_with_a_tenth_of_the_rate_for_each_coarser_one(record):
    snapshots = Snapshots()
    record(snapshots, joint_scales=2, num_scales=3, generator_lr=1e-2)
    before, after = snapshots.weights[-2], snapshots.weights[-1]
    assert [same(old, new) for old, new in zip(before[0], after[0], strict=True)] == [True, True, False]
    assert [same(old, new) for old, new in zip(before[1], after[1], strict=True)] == [True, False, False]


def test_images_stay_as_they_are_without_contrast(tiny):
    image = torch.rand(2, 3, 24, 32)
    assert torch.equal(tiny(contrast=None).model.normalise(image), 2 * image - 1)


def fakes_and_reconstruction(model: HtpGan, image: Tensor) -> Iterator[tuple[float, float]]:
    """For each scale, return the spread of fakes and the error of the reconstruction, in units of the real image's."""
    for scale in range(len(model.model.sizes)):
        real = model.model.at_scale(image, scale)
        fakes = torch.cat([model.model.generate(model._noise(scale, model.rng(9, n))) for n in range(4)])
        error = (model.model.generate(model._fixed_noise(scale)) - real).square().mean().sqrt()
        yield float(fakes.std() / real.std()), float(error / real.square().mean().sqrt())


@pytest.mark.slow
def test_generators_learn_the_texture_with_noise_by_the_error_and_contrast_near_that_of_the_noise(tmp_path):
    seed_all(0)
    recipe = yaml.safe_load((CONFIGS / "learned_texture.yaml").read_text())["model"]["init_args"]
    model = HtpGan(0, (40, 40), num_scales=3, min_size=18, iterations_per_scale=60, **recipe, **QUIET)
    data = TextureDefects(category="brick")
    fit(model, data, tmp_path, {"limit_val_batches": 0})
    image = model.pre_processor.transform(data.train_data[0].image)[None]
    with torch.no_grad():
        results = list(fakes_and_reconstruction(model, image))
    assert all(1 / 1.5 < spread < 1.5 for spread, _ in results), results
    assert all(error < 0.9 for _, error in results), results  # 1 is that of zeros
