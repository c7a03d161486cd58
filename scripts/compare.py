"""`jaxmoe compare`: compares runs on the same questions."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
