"""`python -m studio ARGS` is the command `studio ARGS`."""

from studio.cli import main

main()
