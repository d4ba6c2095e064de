"""The PyTorch back end that Ptychodus, the host application, looks for in a package of this name.

Ptychodus imports the names of `ptycho_torch.config_params`, `ptycho_torch.model`,
`ptycho_torch.lightning_utils` and `ptycho_torch.api.base_api`; those modules hold no code. The
documentation for users is ``docs/ptychodus.md``.
"""
