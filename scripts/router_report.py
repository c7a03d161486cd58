"""`jaxmoe routers`: measures how routers score and choose experts."""

import sys

from jaxmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["routers", *sys.argv[1:]]))
