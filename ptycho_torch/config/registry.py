"""Tables of everything that has a name for the user: generators, losses, readers, writers.

An entry is an import string, ``module:object``. So the choices of a flag are known without
importing torch, and a new generator, loss, reader or writer is one new file and one line here.
"""

from importlib import import_module
from typing import Any

GENERATORS = {
    "unrolled": "ptycho_torch.generators.unrolled:Unrolled",
    "unet": "ptycho_torch.generators.unet:UNet",
}

LOSSES = {
    "poisson": "ptycho_torch.physics.noise:poisson_loss",
    "amplitude": "ptycho_torch.physics.noise:amplitude_loss",
}

READERS = (  # in the order in which a file is tested
    "ptycho_torch.io.readers.ptychonn:FORMAT",
    "ptycho_torch.io.readers.npz:FORMAT",
    "ptycho_torch.io.readers.nexus:FORMAT",
    "ptycho_torch.io.readers.cxi:FORMAT",
    "ptycho_torch.io.readers.ptychodus:FORMAT",
    "ptycho_torch.io.readers.ptychodus_training:FORMAT",
    "ptycho_torch.io.readers.ptychi:FORMAT",
    "ptycho_torch.io.readers.ptypy:FORMAT",
    "ptycho_torch.io.readers.ptylab:FORMAT",
    "ptycho_torch.io.readers.nsls2:FORMAT",
    "ptycho_torch.io.readers.empad:FORMAT",
)

SCAN_WRITERS = {
    "npz": "ptycho_torch.io.writers.npz_writer:write_scan",
    "cxi": "ptycho_torch.io.writers.cxi_writer:write_scan",
    "ptychodus": "ptycho_torch.io.writers.ptychodus_writer:write_scan",
    "ptyd": "ptycho_torch.io.writers.ptypy_writer:write_scan",
}

RESULT_WRITERS = {  # formats of a reconstruction besides reconstruction.npz
    "ptychodus": "ptycho_torch.io.writers.ptychodus_writer:write_result",
    "cxi": "ptycho_torch.io.writers.cxi_writer:write_result",
    "tiff": "ptycho_torch.io.writers.tiff_writer:write_result",
}


def load(entry: str) -> Any:
    """The object of an import string."""
    module, _, name = entry.partition(":")
    return getattr(import_module(module), name)
