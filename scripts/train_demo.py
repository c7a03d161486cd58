"""`jaxmoe demo train`: trains the demo model from nothing."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", "train", *sys.argv[1:]]))
