"""Results into files, one format a module. Every file appears whole or not at all."""

from ptycho_torch.writers.npz import write_reconstruction, write_scan

__all__ = ["write_reconstruction", "write_scan"]
