"""Strategies of Lightning that would lose the history of a training are refused."""

import pytest

from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import InputError
from ptycho_torch.train.fit import check_options


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_a_strategy_that_loses_the_history_is_refused(tmp_path, strategy):
    config = TrainingConfig(train_data_file=[tmp_path], output_dir=tmp_path, strategy=strategy)
    with pytest.raises(InputError, match=f"--strategy {strategy} trains .* use --strategy ddp"):
        check_options(config)


def test_other_strategies_are_left_to_lightning(tmp_path):
    for strategy in ("auto", "ddp", "fsdp"):
        check_options(
            TrainingConfig(train_data_file=[tmp_path], output_dir=tmp_path, strategy=strategy)
        )
