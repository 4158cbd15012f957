"""Runs one job: ``python -m segbench.methods JOB.json``."""

import sys

from segbench.methods.runner import main

sys.exit(main(sys.argv[1:]))
