"""A command that asks for no value: it runs without a kernel, and so without what a kernel has to import."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from kernel.config.settings import Settings
from kernel.errors import one_line
from kernel.observe import console, logs

if TYPE_CHECKING:
    from kernel.process.event_loop import Wake


def run_alone(call: Callable[[], Any], settings: Settings) -> int:
    """Run a command that asks for no value: without a kernel; SIGINT and SIGTERM cancel it, so that it cleans up.

    Args:
        call: May give a coroutine, which then runs on the backend of *settings*.
        settings: The backend.

    """
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        result = call()
        if isinstance(result, Coroutine):
            _run_coroutine(result, settings)
    except KeyboardInterrupt:
        console.say("stopped")
    except BaseException as error:  # noqa: ASYNC103, BLE001  (whatever the user's command raises, outside of any loop)
        logs.logger.error("exit 1: %s", one_line(error), exc_info=error)
        return 1  # noqa: ASYNC104
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _run_coroutine(coroutine: Coroutine[Any, Any, Any], settings: Settings) -> None:
    from anyio import CancelScope, get_cancelled_exc_class

    from kernel.process import event_loop
    from kernel.process.signals import Signals

    signals = Signals(lambda _: None, logs.say_forced_exit)
    raised: list[BaseException] = []

    async def main(wake: Wake) -> None:
        with CancelScope() as scope:

            def on_signal(_: int) -> None:
                wake(scope.cancel)

            signals.listen(on_signal)
            try:
                await coroutine
            except get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001  (a SystemExit would leave the loop behind)
                raised.append(error)

    with signals:
        event_loop.run(main, settings.backend)
    for error in raised:
        raise error
