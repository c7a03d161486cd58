"""`jaxmoe replicate`: draws a paper's tables anew, beside its figures."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["replicate", *sys.argv[1:]]))
