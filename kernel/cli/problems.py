"""Report why nothing was started."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from kernel.config.settings import Settings
from kernel.errors import ConfigError, NotImportable, PlanError, Problems, one_line
from kernel.observe import console, logs

USAGE = 2  # exit code: nothing was started


def report_problems(error: PlanError, settings: Settings, root: str) -> None:
    """Report problems: one line each, or one record each if the logs are JSON.

    Args:
        error: The problems.
        settings: How to report them.
        root: The folder where `.env` is, if there is one.

    """
    problems = error.errors if isinstance(error, Problems) else (error,)
    for note in (*getattr(error, "__notes__", ()), *_not_loaded(problems, root)):
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


def _not_loaded(problems: Sequence[PlanError], root: str) -> list[str]:
    """Return a warning if variables that have a problem are set in a `.env` file that was not loaded."""
    wrong = {name for problem in problems if isinstance(problem, ConfigError) for name in problem.where.split(", ")}
    if not wrong:
        return []
    from kernel.plan.environment import Surroundings

    missing = [name for name in Surroundings.of(os.environ, root).not_loaded if name in wrong]
    return [f".env sets {', '.join(missing)}, but is not loaded; recipes such as `just run` load it"] if missing else []
