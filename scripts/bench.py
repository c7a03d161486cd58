"""`jaxmoe bench`: measures jaxmoe on this machine."""

import sys

try:
    from jaxmoe.cli import main
except ModuleNotFoundError as error:  # a machine without a network, perhaps
    sys.exit(
        f"error: {error.name} is not installed; pip install ., or without a network "
        "carry wheels here (jaxmoe/docs/performance.md, A first run on a GPU or TPU)"
    )

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
