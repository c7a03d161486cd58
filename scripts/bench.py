"""`jaxmoe bench`: measures jaxmoe on this machine."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
