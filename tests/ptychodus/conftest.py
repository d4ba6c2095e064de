"""A simulated scan as Ptychodus has it, and a network that was trained on it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from host_calls import (
    Geometry,
    HostObject,
    Product,
    ReconstructInput,
    TrainInput,
    build_configs,
    in_child,
    run_train,
)

INNER_PX = 3  # by which an object reaches beyond the patches


@pytest.fixture(scope="session")
def known():
    """A scan of 80 patterns of 32x32 over a region that is no square, and its truth in metres.

    The probe of the product has 0.3 times the amplitude that the patterns have.
    """
    from ptycho_torch.data.simulation import simulate_scan

    made = simulate_scan(photons=1e6, n_side=10, step_px=3.5, pattern_size=32, seed=5)
    keep = np.flatnonzero(made.scan.positions_px[:, 1] < 45)
    scan = made.scan.subset(keep)
    pixel_m = scan.pixel_size_m[0]
    return SimpleNamespace(scan=scan, truth=made.truth, pixel_m=pixel_m, probe=0.3 * scan.probe)


@pytest.fixture(scope="session")
def host_input(known):
    """Makes the input of an inference, whose object array lies on the grid of the truth."""

    def make(*, origin_yx=None, shape=None, scan=None, **changes):
        scan = scan or known.scan
        first = np.floor(scan.corners_px().min(axis=0)).astype(int) - INNER_PX
        last = np.ceil(scan.corners_px().max(axis=0)).astype(int) + 32 + INNER_PX
        origin = first if origin_yx is None else np.array(origin_yx)
        size = last - origin if shape is None else np.array(shape)
        center_m = (origin + size / 2) * known.pixel_m
        geometry = Geometry(int(size[0]), int(size[1]), center_m, known.pixel_m)
        product = Product(HostObject(geometry), known.probe, scan.positions_px * known.pixel_m)
        if "probe" in changes:
            product = replace(product, probe=changes.pop("probe"))
        if "layer_spacing_m" in changes:
            product = replace(
                product,
                object_=replace(product.object_, layer_spacing_m=changes.pop("layer_spacing_m")),
            )
        return ReconstructInput(product, np.asarray(scan.counts[:]), **changes)

    return make


@pytest.fixture(scope="session")
def workflow_folder(known, tmp_path_factory):
    """A folder as `ptychodus -b train` reads it: the pair of files, and settings."""
    from ptycho_torch.io.writers.ptychodus_writer import write_scan

    folder = tmp_path_factory.mktemp("workflow")
    write_scan(folder, known.scan)
    (folder / "settings.ini").write_text(
        "[Processing]\nAlgorithm = ptychopinn-torch_unsupervised\n"
    )
    return folder


@pytest.fixture(scope="session")
def training(workflow_folder, tmp_path_factory):
    """A training in a spawned child, as Ptychodus starts it: its outcome and its output folder."""
    output = tmp_path_factory.mktemp("output")
    configs = build_configs(epochs=3, window=21, num_workers=0, accum_steps=2, colour="blue")
    outcome = in_child(run_train, TrainInput(configs, workflow_folder, output))
    assert not outcome.error, outcome.error
    return SimpleNamespace(outcome=outcome, folder=output, checkpoint=output / "model.ckpt")
