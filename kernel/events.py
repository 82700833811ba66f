"""What happens in a run, as data: the events that an `kernel.observer` is told, in order.

Logs, traces, metrics and `/status` are made of the same events; nothing else reports what happened.

    Transition      a service moved from one `State` to another
    AllReady        for the first time every service is ready, done, or failed and allowed to
    ReadyAgain      all are again: a recovery is complete
    StopBegan       the app stops: no service is started from now on
    Forced          another signal cancels what still runs
    Notice          something that moves no service, such as a clean-up that failed after a crash
    StillWaiting    the start or the stop takes long: what waits for what

All are frozen. New fields and new events may come: ignore what you do not know.
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
