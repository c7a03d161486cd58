"""`jaxmoe verify`: asks a chat model how good answers are."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
