"""`jaxmoe random-checkpoint`: writes a checkpoint with random weights."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["random-checkpoint", *sys.argv[1:]]))
