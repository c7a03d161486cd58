"""`jaxmoe sample`: draws n answers to one prompt."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:]]))
