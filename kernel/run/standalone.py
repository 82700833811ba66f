"""Commands that take no value: they run without services, and without importing what services need."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from kernel.config.settings import Settings
from kernel.errors import hint_at_backend, one_line
from kernel.observe import console, logs
from kernel.run.command import Outcome

if TYPE_CHECKING:
    from kernel.process.event_loop import Wake

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def run_alone(call: Callable[[], Any], settings: Settings) -> int:
    """Run a command that takes no value, without services. A signal cancels it, which lets it clean up.

    Args:
        call: Calls the command; may return a coroutine, which runs on the backend of *settings*.
        settings: The backend to use.

    Returns:
        The exit code: what the command returned or passed to `sys.exit`; 1 if it raised; 128 plus the signal's number
        if SIGINT, SIGTERM or SIGHUP stopped it.

    """
    outcome = Outcome()
    stopped = ""

    def interrupt(number: int, _: object) -> None:
        nonlocal stopped
        stopped = signal.Signals(number).name
        raise KeyboardInterrupt

    caught = [number for number in ENDING if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, interrupt) for number in caught}
    try:
        result = call()
        if isinstance(result, Coroutine):
            result, stopped = _run_coroutine(result, settings)
        outcome.returned(result)
    except KeyboardInterrupt:
        stopped = stopped or "SIGINT"
    except SystemExit as error:
        outcome.exited(error)
    except BaseException as error:  # noqa: ASYNC103, BLE001  (the user's command may raise anything; no loop runs here)
        hint_at_backend(error, settings.backend)
        logs.logger.error("exit 1: %s", one_line(error), exc_info=error)
        return 1  # noqa: ASYNC104
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if stopped:
        console.say(f"stopped by {stopped}", logging.INFO)
    return outcome.after(stopped)


def _run_coroutine(coroutine: Coroutine[Any, Any, Any], settings: Settings) -> tuple[Any, str]:
    """Return the coroutine's result, and the name of the signal that stopped it; an empty string if none did."""
    from anyio import CancelScope, get_cancelled_exc_class

    from kernel.process import event_loop
    from kernel.process.signals import Signals

    signals = Signals(lambda _: None, logs.say_forced_exit)
    raised: list[BaseException] = []
    returned: list[Any] = []

    async def main(wake: Wake) -> None:
        with CancelScope() as scope:

            def on_signal(_: int) -> None:
                wake(scope.cancel)

            signals.listen(on_signal)
            try:
                returned.append(await coroutine)
            except get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001  (a SystemExit would leave the loop open)
                raised.append(error)

    with signals:
        event_loop.run(main, settings.backend)
    for error in raised:
        raise error
    return next(iter(returned), None), signals.first
