"""The training command, and notes on what each of its processes did: `noted_training.py FOLDER
ARGUMENTS`.

A program of its own, since Lightning starts the other processes by running the program again. In
FOLDER, for rank R: `R.pid`; `R.reads`, the scan points of each group in the order of reading;
`R.pt`, the weights at the end.

A process that takes too long says where it stands, and ends with an error.
"""

import faulthandler
import json
import os
import sys
from pathlib import Path

import torch

from ptycho_torch.train import main
from ptycho_torch.train.datamodule import GroupDataset
from ptycho_torch.train.module import PtychoModule

LIMIT_S = 120  # more than two processes need to start and to train on a busy machine

faulthandler.dump_traceback_later(LIMIT_S, exit=True)
folder = Path(sys.argv[1])
rank = os.environ.get("LOCAL_RANK", "0")
read = GroupDataset.__getitem__


def noted_read(self, index):
    with open(folder / f"{rank}.reads", "a") as file:
        file.write(json.dumps(index[1]) + "\n")
    return read(self, index)


GroupDataset.__getitem__ = noted_read
PtychoModule.on_train_end = lambda self: torch.save(self.state_dict(), folder / f"{rank}.pt")
(folder / f"{rank}.pid").write_text(str(os.getpid()))
sys.exit(main(sys.argv[2:]))
