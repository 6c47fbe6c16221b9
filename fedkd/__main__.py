"""`python -m fedkd`, for where the command is not on the path."""

import sys

from fedkd.cli import main

sys.exit(main())
