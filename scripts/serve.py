"""`jaxmoe serve`: serves a checkpoint over HTTP, in the shape of OpenAI's API."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
