"""`jaxmoe demo study`: measures the method on the demo model."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", "study", *sys.argv[1:]]))
