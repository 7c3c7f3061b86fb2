"""`python -m fnn` is the command `fnn`."""

from .cli import main

main()
