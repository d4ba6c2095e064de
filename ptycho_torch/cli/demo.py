"""A demonstration on simulated scans, whose objects are known."""

import logging
from pathlib import Path

from ptycho_torch.cli.simulate import simulate
from ptycho_torch.config import DemoConfig, InferenceConfig, SimulationConfig, TrainingConfig
from ptycho_torch.evaluation.metrics.agreement import image_agreement, overlay
from ptycho_torch.evaluation.metrics.frc import ring_curves
from ptycho_torch.evaluation.plots import save_comparison
from ptycho_torch.inference import reconstruct
from ptycho_torch.io.files import write_text
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.train import train

logger = logging.getLogger(__name__)


def demonstrate(config: DemoConfig) -> RunDir:
    """Simulate two scans, train on one, reconstruct the other, and say how good it is.

    Args:
        config: Dose, length of the training, seed, and the folder.

    Returns:
        The folder of the reconstruction.

    Raises:
        InputError: If the folder holds a demonstration already or cannot be written.
    """
    learned, unseen = (
        _simulate(config, name, seed)
        for name, seed in (("learned", config.seed), ("unseen", config.seed + 1))
    )
    run = train(
        TrainingConfig(
            train_data_file=[learned.scan],
            output_dir=config.output_dir / "training",
            max_epochs=config.max_epochs,
            seed=config.seed,
            overwrite=config.overwrite,
            quiet=config.quiet,
        )
    )
    result = reconstruct(
        InferenceConfig(
            model_path=run.path,
            test_data=unseen.scan,
            output_dir=config.output_dir / "reconstruction",
            seed=config.seed,
            overwrite=config.overwrite,
            quiet=config.quiet,
        )
    )
    _judge(config.output_dir, unseen, result)
    return result


def _simulate(config: DemoConfig, name: str, seed: int) -> RunDir:
    """A scan of one of the two objects."""
    return simulate(
        SimulationConfig(
            output_dir=config.output_dir / name,
            photons=config.photons,
            seed=seed,
            overwrite=config.overwrite,
            quiet=config.quiet,
        )
    )


def _judge(folder: Path, known: RunDir, result: RunDir) -> None:
    """Compare with the truth, in figures and in a picture."""
    truth, image = read_reconstruction(known.truth), read_reconstruction(result.reconstruction)
    pair = overlay(image, truth)
    agreement = image_agreement(pair)
    picture = RunDir(folder).comparison_picture
    save_comparison(
        picture,
        pair,
        ring_curves(pair.image, pair.reference, pair="truth"),
        names=("reconstruction", "known object"),
        pixel_size_m=truth.pixel_size_m,
    )
    text = (
        f"an object that the network has not seen, against the simulated truth:\n"
        f"  amplitude SSIM {agreement.amplitude_ssim:.3f}\n"
        f"  phase SSIM     {agreement.phase_ssim:.3f}\n"
        f"  FRC50          {agreement.frc50:.2f} of Nyquist\n"
        f"  correlation    {agreement.correlation:.3f}\n"
        f"pictures: {result.amplitude}, {result.phase}, {picture}\n"
    )
    write_text(folder / "summary.txt", text)
    logger.info("%s", text)
