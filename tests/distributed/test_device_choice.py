"""The choice of a device, and what it means for the precision."""

import os

import pytest
import torch

from ptycho_torch.distributed.device import choose_device
from ptycho_torch.errors import InputError


@pytest.fixture
def with_cuda(monkeypatch):
    """A machine with an NVIDIA GPU, as far as torch says, and its settings put back."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_a_gpu_computes_in_all_of_single_precision(with_cuda, accelerator):
    """Convolutions round to ten bits otherwise, and the image is another one than on the CPU."""
    assert choose_device(accelerator) == torch.device("cuda")
    assert not torch.backends.cudnn.allow_tf32
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_the_cpu_changes_no_setting(with_cuda):
    assert choose_device("cpu") == torch.device("cpu")
    assert torch.backends.cudnn.allow_tf32
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_a_device_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="finds no such device; use --accelerator cpu"):
        choose_device("gpu")
