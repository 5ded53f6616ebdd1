"""`python -m recbole_diffmm` is the console script."""

import sys

from recbole_diffmm.cli import main

sys.exit(main())
