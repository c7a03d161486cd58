"""`jaxmoe scaling`: counts the collectives of compiled steps."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["scaling", *sys.argv[1:]]))
