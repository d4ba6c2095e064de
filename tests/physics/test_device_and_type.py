"""A computation has the device and the number type of its input, whatever torch's defaults are.

A tensor that is made without a device is on torch's default one. Where that has no values, mixing
it with the input raises an error, as it does between the processor and a GPU. A tensor that is made
without a number type has torch's default one; where that is double, the result would be double.
"""

from contextlib import contextmanager

import pytest
import torch

from ptycho_torch.physics.backprojection import backproject_residual
from ptycho_torch.physics.forward import (
    diffraction_intensity,
    illumination,
    illumination_nearest_pixel,
    position_gradient,
    predict_counts,
    quick_illumination,
    scan_layout,
)
from ptycho_torch.physics.gaussian_blur import gaussian_blur
from ptycho_torch.physics.least_squares import least_squares
from ptycho_torch.physics.low_frequency import (
    low_frequency_gain,
    precondition_phase,
    squared_widths,
)
from ptycho_torch.physics.noise import (
    AmplitudeNoise,
    PoissonNoise,
    amplitude_loss,
    poisson_loss,
    thin,
)
from ptycho_torch.physics.patches import add_patches, patch_indices
from ptycho_torch.physics.probe_modes import add_modes, mode_boost, orthogonal_mixing
from ptycho_torch.physics.probe_shift import frequencies, photons_per_exposure, shift_probe
from ptycho_torch.physics.propagation import FarField, NearField

RNG = torch.Generator().manual_seed(0)
CANVAS, SHAPE = (17, 14), (8, 6)


def waves(*shape):
    return torch.randn(*shape, dtype=torch.complex64, generator=RNG)


OBJECT, PROBE, PATCHES = waves(1, *CANVAS), waves(1, 2, *SHAPE), waves(3, *SHAPE)
CORNERS = torch.tensor([[[0.2, 1.4], [5.7, 3.0], [8.6, 7.5]]])
WHOLE = CORNERS.round().long()
COUNTS = torch.full((1, 3, *SHAPE), 5.0)
BACKGROUND = torch.full(SHAPE, 0.25)
MASK = torch.ones(1, *SHAPE, dtype=torch.bool)
SHIFT = torch.tensor([[0.25, -0.5], [0.1, 0.3], [0.0, 0.4]])
PROPAGATORS = {"far": FarField(), "near": NearField(torch.tensor([0.2, 0.3]))}
EXIT_WAVES = waves(3, 2, *SHAPE)
DESIGN = torch.randn(7, 3, generator=RNG)


def counts_of(propagator):
    layout = scan_layout(CORNERS, PROBE, CANVAS, propagator, BACKGROUND)
    return predict_counts(OBJECT, layout)


def back_projection():
    layout = scan_layout(CORNERS, PROBE, CANVAS)
    return backproject_residual(OBJECT, COUNTS, 0.1 * COUNTS, MASK[:, None], layout)


def added():
    canvas = OBJECT[0].clone()
    add_patches(canvas, PATCHES, WHOLE[0])
    return canvas


COMPUTATIONS = {
    "probe shift": lambda: shift_probe(PROBE, SHIFT[:, None]),
    "frequencies": lambda: frequencies(SHAPE, SHIFT),
    "photons": lambda: photons_per_exposure(PROBE),
    "patch indices": lambda: patch_indices(WHOLE, SHAPE, CANVAS),
    "added patches": added,
    "far-field counts": lambda: counts_of(PROPAGATORS["far"]),
    "near-field counts": lambda: counts_of(PROPAGATORS["near"]),
    "illumination": lambda: illumination(scan_layout(CORNERS, PROBE, CANVAS)),
    "illumination at pixels": lambda: illumination_nearest_pixel(CORNERS, PROBE, CANVAS),
    "quick illumination": lambda: quick_illumination(WHOLE[0], PROBE[0], CANVAS),
    "intensity": lambda: diffraction_intensity(PATCHES, PROBE),
    "position gradient": lambda: position_gradient(EXIT_WAVES, PROBE, PATCHES),
    "gain": lambda: low_frequency_gain(PROBE, CANVAS),
    "preconditioned": lambda: precondition_phase(
        OBJECT, 1 + OBJECT, (OBJECT.abs() > 0.5).float(), low_frequency_gain(PROBE, CANVAS)
    ),
    "widths": lambda: squared_widths(PROBE),
    "blur": lambda: gaussian_blur(OBJECT[0], (1.5, 2.0), border="nearest"),
    "added modes": lambda: add_modes(PROBE[0], 4),
    "orthogonal modes": lambda: orthogonal_mixing(PROBE[0]),
    "boost of one mode": lambda: mode_boost(PROBE[0, :1]),
    "boost": lambda: mode_boost(PROBE[0]),
    "Poisson loss": lambda: poisson_loss(COUNTS + 1, COUNTS, MASK),
    "amplitude loss": lambda: amplitude_loss(COUNTS + 1, COUNTS, MASK),
    "Poisson descent": lambda: PoissonNoise().descent(COUNTS + 1, COUNTS.clone()),
    "amplitude descent": lambda: AmplitudeNoise().descent(COUNTS + 1, COUNTS.sqrt()),
    "thinned": lambda: thin(COUNTS, 0.5, torch.Generator().manual_seed(0)),
    "back-projection": back_projection,
    "least squares": lambda: least_squares(DESIGN, DESIGN[:, 0]),
}


@contextmanager
def double_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_defaults_of_torch_change_nothing(name):
    found = []
    for block in (torch.device("cpu"), torch.device("meta"), double_by_default()):
        with block:
            result = COMPUTATIONS[name]()
        found.append(result if isinstance(result, tuple) else (result,))
    for first, elsewhere, double in zip(*found, strict=True):
        assert torch.equal(first, elsewhere)
        assert first.dtype == double.dtype
        assert torch.equal(first, double)
