"""A name that Ptychodus imports in its child processes; see `ptycho_torch.ptychodus`."""

from ptycho_torch.ptychodus.back_end import PtychoPINN_Lightning

__all__ = ["PtychoPINN_Lightning"]
