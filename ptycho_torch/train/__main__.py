"""`python -m ptycho_torch.train`: train a generator on measured patterns."""

import sys

from ptycho_torch.train import main

if __name__ == "__main__":  # processes that load patterns import this module again
    sys.exit(main())
