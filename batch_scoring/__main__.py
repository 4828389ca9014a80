"""`python -m batch_scoring`: the command `batch-scoring`."""

import sys

from batch_scoring.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
