"""Names of flags that do not exist, and the flag that was meant; errors of the parser, in words."""

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Sequence

from ptycho_torch.config.options import KINDS, Options, value_type
from ptycho_torch.errors import InputError

# What an option is called in other programs of this field -> its names here.
SYNONYMS = {
    "epochs": ("max_epochs",),
    "num_epochs": ("max_epochs",),
    "n_epochs": ("max_epochs",),
    "nepochs": ("max_epochs",),
    "iterations": ("refine", "max_epochs"),
    "niter": ("refine", "max_epochs"),
    "lr": ("learning_rate",),
    "bs": ("batch_size",),
    "workers": ("num_workers",),
    "patience": ("early_stop_patience",),
    "time": ("max_time",),
    "random_seed": ("seed",),
    "force": ("overwrite",),
    "verbose": ("debug",),
    "silent": ("quiet",),
    "gpu": ("accelerator", "devices"),
    "gpus": ("devices", "accelerator"),
    "cpu": ("accelerator",),
    "cuda": ("accelerator",),
    "nodes": ("num_nodes",),
    "model": ("model_path", "generator"),
    "network": ("generator", "model_path"),
    "architecture": ("generator",),
    "arch": ("generator",),
    "checkpoint": ("model_path", "resume"),
    "ckpt": ("model_path", "resume"),
    "ckpt_path": ("model_path", "resume"),
    "weights": ("model_path",),
    "data": ("train_data_file", "test_data", "file"),
    "data_file": ("train_data_file", "test_data", "file"),
    "dataset": ("train_data_file", "test_data", "file"),
    "input": ("train_data_file", "test_data", "file"),
    "train": ("train_data_file",),
    "train_data": ("train_data_file",),
    "validation": ("test_data_file",),
    "val_data": ("test_data_file",),
    "out": ("output_dir", "output"),
    "outdir": ("output_dir",),
    "output": ("output_dir",),
    "output_path": ("output_dir", "output"),
    "save_dir": ("output_dir",),
    "loss_function": ("loss",),
    "criterion": ("loss",),
    "energy": ("energy_ev",),
    "distance": ("distance_m",),
    "pixel_size": ("pixel_size_m", "detector_pixel_m"),
    "dx": ("pixel_size_m",),
    "modes": ("probe_modes",),
    "n_modes": ("probe_modes",),
    "num_modes": ("probe_modes",),
    "n_patterns": ("n_images",),
    "num_images": ("n_images",),
    "rebin": ("bin",),
    "binning": ("bin",),
    "roi": ("crop",),
    "position_correction": ("refine_positions",),
    "background": ("refine_background",),
    "dose": ("photons",),
    "n_photons": ("photons",),
}
FEW = 3  # names that are suggested at most


def check_flags(config_type: type[Options], words: Sequence[str], *, prog: str) -> None:
    """Raise `InputError` for a flag that does not exist, with the one that was probably meant."""
    hints = typing.get_type_hints(config_type)
    fields = dataclasses.fields(config_type)
    flags = [item.name for item in fields if not item.metadata["positional"]]
    switches = [f"no_{name}" for name in flags if hints[name] is bool]
    for word in words:
        name = word[2:].partition("=")[0]
        if not word.startswith("--") or not name:
            continue
        if name in (*flags, *switches, "config", "help", "version"):
            continue
        places = [item.name for item in fields if item.metadata["positional"]]
        meant = similar_names(name, [*flags, "config", *switches, *places])
        if not meant:
            raise InputError(f"there is no option --{name}; see {prog} --help")
        if name in places:
            raise InputError(f"{name.upper()} is given without a flag; see {prog} --help")
        named = " or ".join(one.upper() if one in places else f"--{one}" for one in meant)
        if all(one.startswith(name) for one in meant):
            raise InputError(f"--{name} is not written in full; expected {named}")
        raise InputError(f"there is no option --{name}; is {named} meant?")


def similar_names(name: str, known: Iterable[str]) -> list[str]:
    """The options that a wrong name may stand for, the most likely first; a few at most."""
    known = list(known)
    called = [one for one in SYNONYMS.get(name.lower(), ()) if one in known]
    longer = [one for one in known if one.startswith(name)]
    return (called or longer or difflib.get_close_matches(name, known))[:FEW]


def plain_sentence(config_type: type[Options], sentence: str) -> str:
    """What the parser says about a command line, in words of a user.

    A sentence of an unknown kind stays as it is.
    """
    hints = typing.get_type_hints(config_type)
    places = {item.name for item in dataclasses.fields(config_type) if item.metadata["positional"]}

    def shown(name: str) -> str:
        return name.upper() if name in places else f"--{name}"

    wrong = re.match(r'Parser key "(\w+)".*Got value: (.*)', sentence)
    if wrong and wrong[1] in hints:
        kind = KINDS[value_type(hints[wrong[1]])]
        return f"{shown(wrong[1])} is {wrong[2][:80]}; expected a {kind}"
    missing = re.match(r"the following arguments are required: (.*)", sentence)
    if missing:
        names = re.split(r"[, ]+", missing[1])
        return f"{', '.join(shown(name.lstrip('-')) for name in names)} must be given"
    alone = re.match(r"argument (--\w+)(?:/\S+)?: expected (?:at least )?one argument", sentence)
    if alone:
        return f"{alone[1]} needs a value"
    extra = re.match(r"unrecognized arguments: (.*)", sentence)
    if extra:
        return f"'{extra[1]}' belongs to no option"
    return sentence
