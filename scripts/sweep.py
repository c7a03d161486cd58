"""`jaxmoe sweep`: evaluates a grid of policies."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
