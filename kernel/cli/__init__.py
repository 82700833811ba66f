"""The command line, built on cyclopts. Only the modules that the first word needs are imported.

`app --help` reads the names of services from their files. `app X ...` imports X, and the providers its command needs.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from kernel.cli.problems import USAGE, report_problems
from kernel.cli.program import Program
from kernel.config.settings import read_settings
from kernel.errors import PlanError
from kernel.identity import identify
from kernel.masking import learn
from kernel.observe import console, logs

FAILED = 1  # exit code: the command failed
CANNOT_PRINT = frozenset({errno.ENOSPC, errno.EIO, errno.EBADF})  # the disk is full, the terminal gone, stdout closed


def main(app: ModuleType, argv: Sequence[str] | None = None) -> int:
    """Run the command line of the app whose package is *app*, and return the exit code.

    Args:
        app: The package with `init.py` and `commands.py`, beside `services`.
        argv: The arguments after the program's name; None for those of the process.

    """
    learn(os.environ)
    identity = identify(app)
    if identity.root not in sys.path:
        sys.path.insert(0, identity.root)
    words = list(sys.argv[1:] if argv is None else argv)
    settings, wrong = read_settings(os.environ)
    logs.configure(settings, identity)
    program = Program(app, identity, settings, tuple(wrong), process=argv is None)
    lost = ""
    try:
        code = program.dispatch(words)
    except PlanError as error:
        report_problems(error, settings, identity.root)
        code = USAGE
    except BrokenPipeError:  # `app list | head`
        code = 0
    except OSError as error:
        if error.errno not in CANNOT_PRINT:
            raise
        code, lost = FAILED, error.strerror or str(error)
    logs.flush()
    lost = console.close() or lost
    if lost and words[:1] != ["run"]:  # the purpose of a run is not its output
        console.say(f"error: cannot write to stdout: {lost}")
        code = code or FAILED
    return code
