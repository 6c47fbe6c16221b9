"""Lets `python -m fedkd.cli` do what `fedkd` does."""

import sys

from fedkd.cli import main

if __name__ == "__main__":
    sys.exit(main())
