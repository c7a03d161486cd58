"""`jaxmoe plan`: says which slice a model fits, on paper."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["plan", *sys.argv[1:]]))
