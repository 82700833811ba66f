"""The entry point: `python -m app`, or the script of the app's name. An update of the framework replaces this file."""

import sys

import app
from kernel.cli import main as run


def main() -> None:
    """Run the command line."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
