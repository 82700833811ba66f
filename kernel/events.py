"""The events of a run, as data. A function decorated by `kernel.observer` is called with each event, in order.

Logs, traces, metrics and `/status` are based on the same events; nothing else reports what happened.

    Transition      a service moved from one `State` to another
    AllReady        every service is ready, done, or failed (allowed), for the first time
    ReadyAgain      a recovery is complete: all are ready again, or have ended
    StopBegan       the app began to stop: no service is started from now on
    Forced          another signal cancels what is still running
    Notice          something that changes no state, such as a failed clean-up after a crash
    StillWaiting    the start or the stop is slow: which service waits for which

All are frozen. Later versions may add fields and events: ignore the ones you do not know.
"""

from kernel.lifecycle.events import (
    AllReady,
    Event,
    Forced,
    Notice,
    ReadyAgain,
    State,
    StillWaiting,
    StopBegan,
    Transition,
)

__all__ = ["AllReady", "Event", "Forced", "Notice", "ReadyAgain", "State", "StillWaiting", "StopBegan", "Transition"]
