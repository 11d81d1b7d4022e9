"""`python -m lcbatch.simulator`."""

import sys

from lcbatch.simulator.cli import main

if __name__ == "__main__":
    sys.exit(main())
