"""Lets `python -m bsdenoise.cli` do what the command `bsdenoise` does."""

import sys

from bsdenoise.cli import main

sys.exit(main())
