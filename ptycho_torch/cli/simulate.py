"""`ptycho-torch simulate`: write a simulated scan and its truth."""

import logging
from dataclasses import fields

from ptycho_torch.config import SimulationConfig
from ptycho_torch.config.parser import to_yaml
from ptycho_torch.data.measurement_faults import MeasurementFaults, in_words
from ptycho_torch.data.simulation import NO_FAULTS, setup_of, simulate_scan
from ptycho_torch.evaluation.plots import save_simulation
from ptycho_torch.io.files import write_text
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_reconstruction, write_scan

logger = logging.getLogger(__name__)


def simulate(config: SimulationConfig) -> RunDir:
    """Write a simulated scan, its truth, and a picture of both.

    Args:
        config: Size, dose, faults and seed of the scan, and the folder.

    Returns:
        The folder.

    Raises:
        InputError: If the folder holds a run already or cannot be written, or the faults are too
            large for the scan.
    """
    run = RunDir(config.output_dir)
    names = [field.name for field in fields(MeasurementFaults)]
    faults = MeasurementFaults(**{name: getattr(config, name) for name in names})
    with run.claim("simulate", overwrite=config.overwrite):
        made = simulate_scan(
            photons=config.photons,
            n_side=config.n_side,
            step_px=config.step_px,
            pattern_size=config.pattern_size,
            seed=config.seed,
            faults=faults,
            setup=setup_of(
                config.radiation,
                config.fresnel_number if config.propagator == "near_field" else None,
            ),
        )
        write_text(run.config, to_yaml(config))
        write_scan(run.scan_file(config.format), made.scan, format_name=config.format)
        write_reconstruction(run.truth, made.truth)
        save_simulation(run.simulation, made.scan, made.truth)
    scan_file = run.scan_file(config.format)
    logger.info(
        "simulated %d patterns: %s (the known object: %s)", len(made.scan), scan_file, run.truth
    )
    if faults != NO_FAULTS:
        logger.info("the measurement has faults: %s", "; ".join(in_words(faults)))
    return run
