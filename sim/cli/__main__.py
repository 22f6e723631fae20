"""``python -m sim.cli`` is ``veilsim``."""

from sim.cli import main

main()
