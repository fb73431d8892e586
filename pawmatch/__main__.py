"""`python -m pawmatch` is the command line."""

import sys

from pawmatch.cli import main

sys.exit(main())
