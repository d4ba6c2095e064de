"""The options of a reconstruction for Ptychodus, from a YAML file beside the checkpoint.

No setting of Ptychodus reaches an inference, but the path of the checkpoint does. So the options
lie beside the checkpoint, under its name: ``model.yaml`` beside ``model.ckpt``.
"""

from dataclasses import dataclass
from pathlib import Path

from ptycho_torch.config import ReconstructionOptions
from ptycho_torch.config.options import Switch, option
from ptycho_torch.config.parser import parse


@dataclass(frozen=True, kw_only=True)
class BackEndOptions(ReconstructionOptions):
    """Reconstruct for Ptychodus.

    Ptychodus keeps the probe and the positions of the given product, so the object is made for
    these, unless the user wants otherwise.
    """

    refine: str = option(
        "refine the image: a number of epochs, or auto for as many as the held-out patterns "
        "reward; 0 for none",
        default="auto",
    )
    refine_probe: Switch = option("refine the probe together with the image", default="off")
    refine_positions: Switch = option("refine the positions", default="off")
    refine_flux: Switch = option("refine the photons of each pattern", default="off")
    refine_background: Switch = option("refine light that comes past the sample", default="off")
    probe_components: str = option(
        "components of a probe that changes over the scan: a number, off, or auto", default="off"
    )


def options_file(checkpoint: Path) -> Path:
    """The file of options of a checkpoint, which need not be there."""
    return checkpoint.with_suffix(".yaml")


def read_options(checkpoint: Path) -> BackEndOptions:
    """The options in the file beside a checkpoint, and the defaults for what it leaves out.

    Raises:
        InputError: If the file holds an option that is not known, or a value out of range.
    """
    path = options_file(checkpoint)
    argv = ["--config", str(path)] if path.is_file() else []
    return parse(BackEndOptions, argv, prog="ptycho-torch infer")
