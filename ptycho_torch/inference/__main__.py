"""`python -m ptycho_torch.inference`: reconstruct a scan with a trained generator."""

import sys

from ptycho_torch.inference import main

if __name__ == "__main__":
    sys.exit(main())
