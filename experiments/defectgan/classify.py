"""Train the inspection classifier of section 3.2 on any data module, with and without synthetic images.

    python experiments/defectgan/classify.py --data WithDefects --data.base DefectFolder --data.base.root plates \
        --data.real 0.5 --data.masks false --synthetic made --variants real synthetic grl

``--synthetic`` is a folder of ``anomalib-defects synthesize --restored``, preferably with ``--category as-trained``
where images have several types. Options of the data module follow as on the command line of anomalib. The variants are:

- ``real``: the real images only, each class equally often.
- ``synthetic``: ``--share`` of the images of each class, the normal ones included, are synthetic or restored.
- ``grl``: the same images, with the source classifier behind the gradient reversal layer.

The weights with the highest validation accuracy are tested; without validation images, or if these are the test images,
those of the last step. Several types of an image are classified independently. Finished runs are stored in ``--out``
and not repeated; choose another folder for other settings.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import ValSplitMode
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import ConcatDataset, DataLoader

sys.path.append(str(Path(__file__).parents[1]))

from common import add_run_options, markdown, once

from anomalib_defect_plugins.cli.datamodules import find_datamodule, set_up
from anomalib_defect_plugins.core.errors import UserError
from anomalib_defect_plugins.data.dataclasses import GOOD, split_types
from anomalib_defect_plugins.data.summary import datasets_of
from anomalib_defect_plugins.data.training_set import with_defect_types
from anomalib_defect_plugins.models.defectgan.defect_classifier import (
    InspectionBatch,
    InspectionClassifier,
    InspectionSet,
    equal_shares,
)
from anomalib_defect_plugins.synthesis.folder import RESTORED, normal_images, synthetic_defects

VARIANTS = ("real", "synthetic", "grl")


def categories_of(data: AnomalibDataModule) -> tuple[list[str], bool]:
    """Return the defect types of a data module, sorted, and whether an image may have several."""
    tables = [with_defect_types(dataset.samples) for dataset in datasets_of(data).values()]
    sets = {split_types(name) for table in tables for name in table.defect_type if name != GOOD}
    return sorted({name for types in sets for name in types}), any(len(types) > 1 for types in sets)


def collate(items: list[InspectionBatch]) -> InspectionBatch:
    """Collate samples into a batch."""
    return InspectionBatch(*map(torch.stack, zip(*items, strict=True)))


def classify(options: Namespace, data: AnomalibDataModule, name: str, seed: int) -> dict[str, float]:
    """Train and test a variant."""
    seed_everything(seed)
    categories, multi_label = categories_of(data)

    def part(dataset: AnomalibDataset, synthetic: bool = False) -> InspectionSet:
        return InspectionSet(dataset, categories, synthetic, options.size)

    parts = [part(data.train_data)]
    if name != "real":
        parts += [part(synthetic_defects(options.synthetic), True)]
        parts += [part(normal_images(options.synthetic, RESTORED), True)]
    model = InspectionClassifier(
        categories,
        multi_label,
        options.backbone,
        pre_trained=not options.random,
        source_classifier=name == "grl",
        frozen_norm=options.frozen_norm,
        learning_rate=options.learning_rate,
    )
    loading: dict[str, Any] = {"batch_size": options.batch_size, "num_workers": options.workers, "collate_fn": collate}
    sampler = equal_shares(parts, options.iterations * options.batch_size, 0 if name == "real" else options.share)
    training: ConcatDataset[Any] = ConcatDataset(parts)
    validated = data.val_split_mode not in {ValSplitMode.NONE, ValSplitMode.SAME_AS_TEST}
    with TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val_accuracy", mode="max")
        trainer = Trainer(
            max_steps=options.iterations,
            val_check_interval=min(options.iterations, options.validate_every),
            gradient_clip_val=options.clip,
            precision=options.precision,
            devices=1,
            logger=False,
            callbacks=[best] if validated else [],
            enable_checkpointing=validated,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        validation = DataLoader(part(data.val_data), **loading) if validated else None
        trainer.fit(model, DataLoader(training, sampler=sampler, **loading), validation)
        tested = DataLoader(part(data.test_data), **loading)
        metrics = trainer.test(model, tested, best.best_model_path or None, verbose=False)[0]
    return {key.removeprefix("test_"): value for key, value in metrics.items()}


def read_arguments() -> Namespace:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, help="data module with real images of all classes")
    parser.add_argument("--synthetic", type=Path, help="folder of 'anomalib-defects synthesize --restored'")
    parser.add_argument("--share", type=float, default=0.5, help="share of synthetic images in each class")
    parser.add_argument("--backbone", default="resnet34", help="the paper's are resnet34 and densenet121")
    parser.add_argument("--random", action="store_true", help="initialise the backbone at random")
    parser.add_argument("--frozen-norm", action="store_true", help="freeze the statistics of batch norm")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--clip", type=float, help="maximum gradient norm")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--validate-every", type=int, default=200, help="steps between validations")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=["real"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    add_run_options(parser, "results/defectgan/classify")
    options, options.rest = parser.parse_known_args()
    if options.synthetic is None and set(options.variants) != {"real"}:
        parser.error("the variants synthetic and grl need --synthetic")
    return options


def main() -> None:
    """Run the missing variants and print the table."""
    options = read_arguments()
    torch.set_num_threads(options.threads)
    rows = []
    try:
        for seed in options.seeds:
            data = set_up(find_datamodule(options.data), options.data, options.rest, seed)
            for name in options.variants:
                path = options.out / f"{name}-{seed}.json"
                metrics = once(path, lambda name=name, seed=seed, data=data: classify(options, data, name, seed))
                rows.append({"variant": name, "seed": seed, **metrics})
    except UserError as error:
        sys.exit(f"error: {error}")
    print(markdown(rows))


if __name__ == "__main__":
    main()
