"""Report why nothing was started."""

from __future__ import annotations

import logging

from kernel.config.settings import Settings
from kernel.errors import NotImportable, PlanError, Problems, one_line
from kernel.observe import console, logs

USAGE = 2  # exit code: nothing was started


def report_problems(error: PlanError, settings: Settings) -> None:
    """Report problems: one line each, or one record each if the logs are JSON."""
    problems = error.errors if isinstance(error, Problems) else (error,)
    for note in getattr(error, "__notes__", ()):
        if settings.log_json:
            logs.logger.warning(note)
        else:
            console.say(f"warning: {note}", logging.WARNING)
    for problem in problems:
        if settings.log_json:
            logs.logger.error(str(problem), extra={"exit_code": USAGE})
        else:
            console.say(f"error: {problem}")
            cause = problem.__cause__
            if isinstance(problem, NotImportable) and cause is not None and cause.__cause__ is not None:
                console.say(f"  caused by {one_line(cause.__cause__)}")
    if not settings.log_json:
        count = f"{len(problems)} problems; " if len(problems) > 1 else ""
        console.say(f"{count}nothing was started")
