"""Mutants of `make mutation` that change nothing that can be seen, and why."""

# Patterns of the changed lines, in any module.
EQUIVALENT_KINDS: tuple[tuple[str, str], ...] = (
    (
        r"strict=(None|False)\)",
        "the two are of one length by construction; `strict` raises an error where they are not",
    ),
    (r'(lengths|quantity)\(.*, "[A-Z]+"\)', "a unit is taken in any case"),
    (r'"XX[biufc]+XX"', "no kind of numbers is called X"),
    (
        r"\((wavelength|pixel) is None\) and False",
        "the dataset is needed, so that there is a number; the condition is for the type checker",
    ),
    (r"torch\.meshgrid\(y, x, \)", "the order of torch today, with a warning that it may change"),
)

_ENUM = "tifffile takes the names of these constants in any case"
_MODE = "a file is opened for reading where h5py is told no mode"
_WHOLE = "whole numbers take the number type of the power in the next line"

# The key is the module, the function, and the lines as the mutant has them.
EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("data/hdf5_access.py", "_open_finished", "return h5py.File(path, )"): _MODE,
    ("data/hdf5_access.py", "_open_finished", "return h5py.File(path, swmr=True)"): _MODE,
    ("data/hdf5_access.py", "open_read_only", "return h5py.File(path, locking=False)"): _MODE,
    (
        "data/hdf5_access.py",
        "open_read_only",
        "return h5py.File(path, locking=False, swmr=True)",
    ): _MODE,
    (
        "physics/probe_modes.py",
        "add_modes",
        "y, x = (torch.arange(size, dtype=None, device=power.device) for size in power.shape)",
    ): _WHOLE,
    (
        "physics/probe_modes.py",
        "add_modes",
        "y, x = (torch.arange(size, device=power.device) for size in power.shape)",
    ): _WHOLE,
    (
        "physics/probe_modes.py",
        "mode_boost",
        "if (len(probe) > 1) or True",
    ): "of a single mode the power is all the power, and the root of 1 is 1",
    (
        "data/probe.py",
        "ring_offset",
        "return (np.array(center) - np.array(reference) - size / 2) % size - size / 2",
    ): "on a ring, half its size forwards and backwards lead to the same place",
    (
        "data/raster.py",
        "raster_positions_m",
        "for step, count in zip(step_m, shape, )",
    ): "both are pairs",
    (
        "data/measurement_faults.py",
        "displacements",
        "shifts = (shifts[:, None] + moved[None]).reshape(-2, 2)",
    ): "NumPy takes any negative number for the open size",
    (
        "io/readers/nexus.py",
        "read_nexus",
        'positions_unit="XXmXX",',
    ): "positions are in metres unless the unit is px",
    (
        "io/readers/ptychonn.py",
        "read_ptychonn",
        'unit = "metres" if metric else "OBJECT PIXELS"',
    ): "the words of a message",
    (
        "io/writers/tiff_writer.py",
        "_write",
        'photometric="MINISBLACK",',
    ): _ENUM,
    (
        "io/writers/tiff_writer.py",
        "_write",
        'resolutionunit=None if resolution is None else "centimeter",',
    ): _ENUM,
    (
        "physics/incoherent.py",
        "coherent_sum",
        "return waves.sum(dim=-3) if (waves.shape[-3] > 1) or True else waves.squeeze(-3)",
    ): "the sum over one mode is that mode; the squeeze is only faster",
    (
        "refinement/joint_refinement.py",
        "refine",
        "origin = torch.as_tensor(start.origin_yx, dtype=None)",
    ): "the origin of an image is float64 already",
    (
        "refinement/pattern_store.py",
        "in_file",
        "written -= block.nbytes",
    ): "a number in a message",
    (
        "refinement/probe_alignment.py",
        "_along",
        "return torch.arange(size, dtype=like.dtype, device=like.device) - size / 3",
    ): "the answer is found beside a factor and a global phase, which take the other origin up",
    (
        "refinement/probe_change.py",
        "remove_described_elsewhere",
        "y, x = ((torch.arange(size, device=probe.device) - size * 2) for size in (height, width))",
    ): "ramps about another origin and the probe itself span the same space",
    (
        "refinement/probe_change.py",
        "spectrum_centres",
        "factors = (weights.new_ones(1, ), along_y[:, None], along_x[None])",
    ): "both are broadcast to the same shape",
    (
        "io/readers/empad.py",
        "EmpadPatterns.read",
        'if file.readinto(pattern.data.cast("b")) < pattern.nbytes:',
    ): "bytes with a sign have the same size",
    (
        "data/probe.py",
        "focused_probe",
        "photons = float(mean_pattern.sum(dtype=None))",
    ): "NumPy sums in pairs, as exactly as single precision holds the result",
    (
        "data/probe.py",
        "resample_probe",
        "axes = None",
    ): "two shifts of the modes undo each other",
    (
        "data/simulation.py",
        "_random_shapes",
        "box = (np.abs(u) < radius) & (np.abs(v) <= radius * aspect)",
    ): "no pixel lies exactly on the border of a random shape",
    (
        "evaluation/metrics/residuals.py",
        "_chi2",
        "cells = math.floor(model.shape[1] * ENOUGH / CELL) + 3",
    ): "room for one more cell, which stays empty",
}
