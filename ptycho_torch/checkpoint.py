"""Trained generators from checkpoint files, without executing anything that a file contains."""

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from ptycho_torch.conditions import trained_under
from ptycho_torch.errors import InputError
from ptycho_torch.generators import GENERATORS, Generator, build_generator
from ptycho_torch.run_dir import RunDir

DAMAGE = (  # what damaged bytes make torch raise
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)
PREFIX = "generator."


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the best one of a run folder, else the last.

    Raises:
        InputError: If there is none.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint or run folder")
    run = RunDir(path)
    for checkpoint in (run.best_checkpoint, run.last_checkpoint):
        if checkpoint.is_file():
            return checkpoint
    raise InputError(f"{path}: holds no checkpoint; expected {run.last_checkpoint.relative_to(path)} as training leaves it")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, plain numbers, strings, lists and tensors only.

    Raises:
        InputError: If it cannot be read, or is not one of this package.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise InputError(
            f"{path}: not a readable checkpoint ({_reason(error)}); is it complete, and written by this package?"
        ) from error
    settings = content.get("hyper_parameters") if isinstance(content, dict) else None
    settings = settings if isinstance(settings, dict) else {}
    known = settings.get("generator") in list(GENERATORS) and isinstance(settings.get("about"), dict)
    if not known or "state_dict" not in content:
        raise InputError(f"{path}: a checkpoint of another program; expected one that ptycho_torch.train wrote")
    return content


def load_generator(path: Path) -> tuple[Generator, dict[str, Any]]:
    """The generator of a checkpoint, with its weights, ready for inference, and the facts about its run.

    Args:
        path: Checkpoint file.

    Returns:
        Generator, and what its training noted about itself, with the ``steps`` that it had taken (None if unknown).

    Raises:
        InputError: If the file is damaged, or of another program or generator.
    """
    content = read_checkpoint(path)
    settings = content["hyper_parameters"]
    try:
        generator = build_generator(settings["generator"], settings["settings"])
        weights = {key.removeprefix(PREFIX): value for key, value in content["state_dict"].items() if key.startswith(PREFIX)}
        generator.load_state_dict(weights)
        trained_under(settings["about"])
    except DAMAGE as error:
        raise InputError(f"{path}: does not hold a trained generator '{settings['generator']}' ({_reason(error)})") from error
    steps = content.get("global_step")
    return generator.eval(), settings["about"] | {"steps": steps if isinstance(steps, int) else None}


def _reason(error: Exception) -> str:
    """The first line of an error of torch, whose others are advice on its options."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
