"""`python -m bsdenoise`, which is the command `bsdenoise`."""

import sys

from bsdenoise.cli import main

sys.exit(main())
