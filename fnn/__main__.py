"""`python -m fnn` is the command `fnn`."""

from .cli import main

if __name__ == "__main__":  # and not in the processes that the command starts
    main()
