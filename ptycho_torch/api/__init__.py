"""A package that Ptychodus imports; see `ptycho_torch.ptychodus`."""
