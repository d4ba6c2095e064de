"""Pure functions of tensors: propagation, patches, probe, forward model, likelihood."""

from ptycho_torch.physics.forward import Geometry, coverage, diffraction_intensity, illumination, locate, predict_counts
from ptycho_torch.physics.gradient import backproject_residual
from ptycho_torch.physics.incoherent import coherent_sum, incoherent_sum
from ptycho_torch.physics.likelihood import LOSSES, amplitude_loss, poisson_loss
from ptycho_torch.physics.patches import add_patch, extract_patches, patch_indices, place_patches, split_corners
from ptycho_torch.physics.probe import photons_per_exposure, shift_probe
from ptycho_torch.physics.propagate import far_field, far_field_adjoint
from ptycho_torch.physics.slow_phase import slow_phase_gain, with_slow_phase

__all__ = [
    "LOSSES",
    "Geometry",
    "add_patch",
    "amplitude_loss",
    "backproject_residual",
    "coherent_sum",
    "coverage",
    "diffraction_intensity",
    "extract_patches",
    "far_field",
    "far_field_adjoint",
    "illumination",
    "incoherent_sum",
    "locate",
    "patch_indices",
    "photons_per_exposure",
    "place_patches",
    "poisson_loss",
    "predict_counts",
    "shift_probe",
    "slow_phase_gain",
    "split_corners",
    "with_slow_phase",
]
