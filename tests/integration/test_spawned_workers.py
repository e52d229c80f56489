"""Training with worker processes that are spawned, as on Windows and macOS."""

import multiprocessing

import pytest

from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.isugan import IsuGan
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import fit

NO_VALIDATION = {"limit_val_batches": 0}
"""Starts no worker for validation; each imports everything, which takes seconds."""


@pytest.fixture
def _spawning():
    """Spawn the worker processes of data loaders."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
@pytest.mark.usefixtures("_spawning")
def test_a_model_with_batches_of_its_own_trains_with_spawned_workers(tmp_path):
    write_folder_data(tmp_path / "data", image_size=(40, 48), normal=4, normal_test=2, defective=3)
    folder = folder_datamodule(tmp_path / "data")
    folder.num_workers = 1
    settings = {
        "backbone": None,
        "width": 4,
        "residual_blocks": 1,
        "involution": False,
        "iterations": 2,
        "batch_size": 1,
    }
    run = fit(
        IsuGan((32, 32), **settings), WithDefects(folder, real=1, masks=False), tmp_path / "results", NO_VALIDATION
    )
    assert run.model.global_step >= 2
