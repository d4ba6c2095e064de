"""Where to compute, and its memory."""

import contextlib
import ctypes
import math
import os
from collections.abc import Iterator

import torch

from ptycho_torch.errors import InputError

SMALL_PATTERN_PX = 64 * 64  # up to which two threads are no faster than one in a training
# Numbers of two settings in the C library's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30  # of freed memory; a training step with patterns of 256 x 256 needs half of it
LARGEST_KEPT_BYTES = 2**25  # of one array; larger ones go back at once and leave no gaps


def choose_device(accelerator: str) -> torch.device:
    """The device for `--accelerator`; auto takes a GPU where there is one.

    For an NVIDIA GPU it also sets torch to deterministic matrix products, and to convolutions in
    full single precision.

    Raises:
        InputError: If this machine has no such device.
    """
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    wanted = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}.get(
        accelerator, (accelerator,)
    )
    for name in wanted:
        if available[name]:
            if name == "cuda":
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.backends.cudnn.allow_tf32 = False  # else they round numbers to ten bits
            return torch.device(name)
    raise InputError(
        f"--accelerator {accelerator}: torch {torch.__version__} finds no such device; "
        "use --accelerator cpu"
    )


def require_determinism(required: bool) -> None:
    """Refuse operations that may give other bits each time, or allow them again.

    It does what `torch.use_deterministic_algorithms` does, without the setting of torch's compiler:
    to import the compiler takes as long as to import torch, and nothing here is compiled. Nor is
    new memory filled, which takes a launch for each tensor.
    """
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_deterministic_debug_mode("error" if required else "default")


def double_precision_device(device: torch.device) -> torch.device:
    """The device itself, or the CPU where it has no double precision, as Apple's GPUs."""
    return torch.device("cpu") if device.type == "mps" else device


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed arrays for the next ones.

    By itself it soon returns some of it to the system, and asks for it again with the next array,
    which the system then fills with zeros, page by page. That takes up to a fifth of an epoch of
    the refinement of small patterns, and a seventh of a training step of large ones. `trim_malloc`
    returns what is kept.
    """
    call_c_library("mallopt", M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
    call_c_library("mallopt", M_TRIM_THRESHOLD, KEPT_BYTES)


def trim_malloc() -> None:
    """Return freed memory to the system.

    The C library keeps it, and arrays of many sizes leave gaps that grow for hours.
    """
    call_c_library("malloc_trim", 0)


def call_c_library(function: str, *numbers: int) -> None:
    """Call a function of the C library; nothing where it has none, since such systems need none."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        getattr(ctypes.CDLL(None), function)(*numbers)


@contextlib.contextmanager
def threads_for(pattern_shape: tuple[int, int]) -> Iterator[None]:
    """A block that computes with one thread if the patterns are small.

    Several would divide arrays of some thousand numbers and wait for each other: that gains nothing
    where every thread has a core, and takes many times as long where another program has one.
    Nothing is changed if the variable ``OMP_NUM_THREADS`` is set.
    """
    threads = torch.get_num_threads()
    if math.prod(pattern_shape) <= SMALL_PATTERN_PX and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
