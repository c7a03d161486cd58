"""`python -m jaxmoe`, which is the command `jaxmoe`."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main())
