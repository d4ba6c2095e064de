"""`python -m ptycho_torch COMMAND`, the same as `ptycho-torch COMMAND`."""

import sys

from ptycho_torch.cli import main

sys.exit(main())
