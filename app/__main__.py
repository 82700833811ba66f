"""The entry point: `python -m app`, or the script of the app's name. An update of the framework replaces this file."""

import sys

import app


def main() -> None:
    """Run the command line; Ctrl+C before anything has begun leaves no traceback."""
    try:
        from kernel.cli import main as run

        sys.exit(run(app))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
