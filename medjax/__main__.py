"""``python -m medjax``: the command line."""

import sys

from medjax.cli import main

if __name__ == "__main__":
    sys.exit(main())
