"""The entry point: `python -m app`, or the script of the app's name. An update of the framework replaces this file."""

import gc
import os
import signal
import sys

import app


def main() -> None:
    """Run the command line. Until the kernel is imported, a signal finds nothing started."""
    gc.disable()  # objects made by imports stay, so collecting garbage is a waste; the kernel enables it again
    if sys.argv[1:2] == ["run"]:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: os._exit(0))
    try:
        from kernel.cli import main as run

        sys.exit(run(app))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
