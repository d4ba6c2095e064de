"""Where to compute."""

import torch

from ptycho_torch.errors import InputError


def choose_device(accelerator: str) -> torch.device:
    """The device for `--accelerator`; auto takes a GPU where there is one.

    Raises:
        InputError: If this machine has no such device.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    wanted = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}.get(accelerator, (accelerator,))
    for name in wanted:
        if available[name]:
            return torch.device(name)
    raise InputError(f"--accelerator {accelerator}: torch {torch.__version__} finds no such device; use --accelerator cpu")
