"""`jaxmoe evaluate`: puts a task's questions to a model."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
