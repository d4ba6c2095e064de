"""A refinement of everything about a measurement, shared by processes: `shared_refinement.py
FOLDER DEVICES EPOCHS`.

A program of its own, since Lightning starts the other processes by running the program again. In
FOLDER, for rank R: `R.pid`; `R.npz`, the result and the number of patterns that the process read.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.refinement.measurement_refiner import MeasurementOptions, MeasurementRefiner


def faulty_scan():
    """81 patterns in double precision, whose positions, flux, background and probe are wrong; and
    an image to begin with.
    """
    made = simulate_scan(photons=1e6, n_side=9, step_px=3.0, pattern_size=16, seed=4)
    scan, rng = made.scan, np.random.default_rng(0)
    flux = rng.uniform(0.8, 1.2, len(scan))
    wrong = replace(
        scan,
        counts=np.asarray(scan.counts[:]) * flux[:, None, None] + 20.0,
        positions_px=scan.positions_px + rng.normal(0, 0.3, scan.positions_px.shape),
        probe=scan.probe.astype(np.complex128) * np.exp(0.3j * rng.random(scan.pattern_shape)),
    )
    return wrong, torch.from_numpy(made.truth.object)


def refined(comm, epochs):
    """Object, positions and the rest after some epochs, and the scores of the held-out patterns."""
    scan, truth = faulty_scan()
    options = MeasurementOptions(
        positions="on", flux="on", background="on", probe="on", probe_modes=2
    )
    refiner = MeasurementRefiner(scan, options, comm=comm)
    obj = torch.ones(refiner.shape, dtype=torch.complex128)
    obj[12 : 12 + truth.shape[0], 12 : 12 + truth.shape[1]] = truth
    joint = refiner.with_components(refiner.start(obj, options.wanted()), 1)
    refiner.run(joint, [0.3] * epochs)
    refiner.halves.place(joint.patterns, joint.state, joint.refined)
    return {
        "object": joint.state.obj.numpy(),
        "probe": joint.state.probe.numpy(),
        "components": joint.state.components.numpy(),
        "positions": joint.patterns.centres.numpy(),
        "flux": joint.patterns.flux.numpy(),
        "background": joint.patterns.background.numpy(),
        "scores": refiner.scores(joint).numpy(),
        "noise": refiner.halves.noise(joint.patterns, joint.state).numpy(),
        "kept": len(refiner.prepared.measured.values),
    }


def main(folder, devices, epochs):
    from ptycho_torch.distributed.fabric import FabricProcesses

    comm = FabricProcesses("cpu", devices, 1)
    (folder / f"{comm.rank}.pid").write_text(str(os.getpid()))
    with comm.launch():
        np.savez(folder / f"{comm.rank}.npz", **refined(comm, epochs))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
