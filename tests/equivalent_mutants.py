"""Mutants of `make mutation` that change nothing that can be seen, and why.

The key is the module, the function, and the lines as the mutant has them.
"""

_ENUM = "tifffile takes the names of these constants in any case"
_WHOLE = "whole numbers take the number type of the power in the next line"

EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "physics/probe_modes.py",
        "add_modes",
        "y, x = (torch.arange(size, dtype=None) for size in power.shape)",
    ): _WHOLE,
    (
        "physics/probe_modes.py",
        "add_modes",
        "y, x = (torch.arange(size, ) for size in power.shape)",
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
}
