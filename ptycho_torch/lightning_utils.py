"""A name that Ptychodus imports in its child processes; see `ptycho_torch.ptychodus`."""

from ptycho_torch.ptychodus.back_end import find_best_checkpoint

__all__ = ["find_best_checkpoint"]
