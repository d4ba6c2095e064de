"""Trained generators from checkpoint files, without executing anything that a file contains."""

import json
import logging
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptycho_torch.config.registry import GENERATORS
from ptycho_torch.data.conditions import training_conditions
from ptycho_torch.errors import InputError, is_lack_of_memory, too_little_memory
from ptycho_torch.generators import Generator, build_generator
from ptycho_torch.io.readers.file_kind import kind_of_file
from ptycho_torch.io.run_dir import RunDir

logger = logging.getLogger(__name__)

DAMAGE = (  # what damaged bytes make torch raise
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)
INTERNAL = ("enforce fail", ".cc:", "weights_only", "Weights only", "Errno", "torch.load")
PREFIX = "generator."
LARGEST = 1e30  # of every number among the conditions of a training; no scan comes near
DEPRECATED_SETTINGS = {"members": "group_size"}  # older name in a checkpoint -> name


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
    expected = run.last_checkpoint.relative_to(path)
    raise InputError(f"{path}: holds no checkpoint; expected {expected} as training leaves it")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint: plain numbers, strings, lists and tensors only.

    Raises:
        InputError: If it cannot be read, or is not one of this package.
    """
    try:
        kind = kind_of_file(path)
        if kind != "a checkpoint":
            raise InputError(
                f"{path}: not a readable checkpoint; it is {kind}; expected the folder of a "
                "training, or a .ckpt file of it"
            )
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
            spoiled = archive.testzip()
        if spoiled is not None:
            raise ValueError(f"its part {spoiled} is damaged")
        with warnings.catch_warnings(action="ignore"):  # advice on the options of torch
            content = torch.load(path, map_location="cpu", weights_only=True)
        check_tensors(content)
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        if is_lack_of_memory(error):
            raise too_little_memory(str(path)) from error
        raise InputError(
            f"{path}: not a readable checkpoint ({reason_of(error)}); "
            "is it complete, and written by this package?"
        ) from error
    parameters = content.get("hyper_parameters") if isinstance(content, dict) else None
    parameters = parameters if isinstance(parameters, dict) else {}
    known = parameters.get("generator") in list(GENERATORS) and isinstance(
        parameters.get("about"), dict
    )
    if not known or not isinstance(content.get("state_dict"), dict):
        raise InputError(
            f"{path}: a checkpoint of another program; expected one that ptycho_torch.train wrote"
        )
    _use_current_names(path, parameters)
    try:
        json.dumps(parameters["about"], allow_nan=False)
    except DAMAGE as error:
        raise InputError(
            f"{path}: its facts are not all numbers, texts and lists; expected those of a training"
        ) from error
    return content


def check_tensors(content: Any) -> None:
    """Raise `ValueError` for tensors that declare more than they hold, or are not finite."""
    weights = content.get("state_dict"), content.get("optimizer_states")
    for tensor in tensors_in(content):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)} holds fewer numbers")
    for tensor in tensors_in(weights):
        if not torch.isfinite(tensor).all():
            raise ValueError("a weight is not finite")


def tensors_in(content: Any) -> Iterator[Tensor]:
    """The tensors in nested dictionaries, lists and tuples."""
    todo, seen = [content], set()
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, dict):
            todo.extend(part.values())
        elif isinstance(part, list | tuple):
            todo.extend(part)


def load_generator(path: Path) -> tuple[Generator, dict[str, Any]]:
    """The generator of a checkpoint, ready for inference, and the facts about its training.

    Args:
        path: Checkpoint file.

    Returns:
        Generator, and the ``about`` of its training with the number of ``steps`` (None if
        unknown).

    Raises:
        InputError: If the file is damaged, or of another program or generator.
    """
    content = read_checkpoint(path)
    parameters = content["hyper_parameters"]
    try:
        weights = {
            key.removeprefix(PREFIX): value
            for key, value in content["state_dict"].items()
            if key.startswith(PREFIX)
        }
        check_shapes(parameters, weights)
        generator = build_generator(parameters["generator"], parameters["settings"])
        generator.load_state_dict(weights)
        for conditions in training_conditions(parameters["about"]):
            counts = conditions.probe_modes, conditions.pattern_rows, conditions.pattern_columns
            if not all(0 <= value < LARGEST for value in astuple(conditions)) or 0 in counts:
                raise ValueError("the conditions of its training are impossible")
    except DAMAGE as error:
        if is_lack_of_memory(error):
            raise too_little_memory(str(path)) from error
        name = parameters["generator"]
        raise InputError(
            f"{path}: does not hold a trained generator '{name}' ({reason_of(error)})"
        ) from error
    steps = content.get("global_step")
    return generator.eval(), parameters["about"] | {
        "steps": steps if isinstance(steps, int) else None
    }


def check_shapes(parameters: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Raise `ValueError` if the weights do not fit the settings, which then cost no memory."""
    with torch.device("meta"):
        expected = build_generator(parameters["generator"], parameters["settings"]).state_dict()
    for name in expected.keys() | weights.keys():
        if name not in weights or name not in expected:
            raise ValueError(f"weight '{name}' is missing or too much")
        if weights[name].shape != expected[name].shape:
            found, fitting = tuple(weights[name].shape), tuple(expected[name].shape)
            raise ValueError(f"weight '{name}' is of shape {found}; its settings make {fitting}")


def _use_current_names(path: Path, parameters: dict[str, Any]) -> None:
    """Replace the older names in the hyper-parameters of a checkpoint, with a warning."""
    older = False
    for part in ("settings", "about"):
        facts = parameters.get(part)
        if isinstance(facts, dict) and not DEPRECATED_SETTINGS.keys().isdisjoint(facts):
            parameters[part] = {
                DEPRECATED_SETTINGS.get(name, name): value for name, value in facts.items()
            }
            older = True
    if older:
        logger.warning("%s was written by an older version; its older names are read", path)


def reason_of(error: Exception) -> str:
    """Why a content cannot be used; of an error of torch its first line, where that is a sentence.

    The other lines, and lines about its source code, are for those who write torch.
    """
    if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
        return "it holds Python objects, which are never loaded"
    line = (str(error).splitlines() or [""])[0][:160]
    is_sentence = " " in line.strip() and not any(words in line for words in INTERNAL)
    return line if is_sentence else "its content is damaged"
