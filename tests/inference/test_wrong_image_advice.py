"""What a user is told where the image does not explain the patterns."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from ptycho_torch.evaluation.metrics.residuals import pattern_residuals
from ptycho_torch.inference.in_memory import image_metrics


@pytest.mark.parametrize(
    ("refined", "advice"),
    [(False, "refine it with --refine auto"), (True, "check the probe and the positions")],
)
def test_an_image_worse_than_none_is_named_with_one_next_step(simulation, caplog, refined, advice):
    rng = np.random.default_rng(0)
    phase = rng.uniform(-np.pi, np.pi, simulation.truth.object.shape)
    wrong = replace(simulation.truth, object=np.exp(1j * phase).astype(np.complex64))
    device = torch.device("cpu")
    with caplog.at_level(logging.WARNING, logger="ptycho_torch"):
        for result in (simulation.truth, wrong):
            residuals = pattern_residuals(result, simulation.scan, device)
            image_metrics(result, simulation.scan, residuals, refined=refined)
    said = [one for one in caplog.messages if "no better than an empty one" in one]
    assert len(said) == 1, "of the right image nothing is said"
    assert said[0].endswith(advice)
