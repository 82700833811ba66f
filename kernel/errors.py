"""Every exception of the kernel.

    KernelError
    ├── PlanError                nothing was started; exit code 2
    │   ├── Problems             several of them, reported in one go
    │   ├── NamingError          a name that is unknown, taken, reserved or malformed
    │   ├── CycleError           services that wait for each other
    │   ├── DeclarationError     a service, parameter or command that is declared wrongly
    │   ├── NotImportable        a service's file that does not import
    │   ├── ConfigError          a value in the environment that cannot be used
    │   └── LeftOutError         a value is needed from a service that is not enabled
    ├── BrickError               what `serve_asgi` or `program` could not do
    │   ├── CannotListen         the address cannot be listened on
    │   ├── ServerMissing        no ASGI server is installed that runs here
    │   ├── LifespanFailed       the ASGI app says that its lifespan failed
    │   └── ProgramError         the program cannot run, or no longer runs
    ├── CallError                a call to another service failed
    │   ├── CallFailed           it raised what its interface does not declare
    │   ├── Unavailable          nobody received the call
    │   ├── Overloaded           too many calls wait for it
    │   ├── DeadlineExceeded     no answer in time; a TimeoutError too
    │   ├── ContractMismatch     it has another contract than its caller
    │   └── BadRequest           the arguments are not of their types, or too large
    └── ServiceError             what became of one running service
        ├── NeverServed          it returned without ever serving
        ├── ServedTwice          it entered `serving` twice in one attempt
        ├── StartTimeout         it was not ready in time
        ├── StopTimeout          it had to be cut while stopping
        ├── ValueLost            the value it holds is gone for good
        ├── StrayCancellation    it was cancelled, but not by the kernel
        └── Uncancellable           it ignored even that, and was abandoned

A `PlanError` says what is wrong, where, and what to do. A `ServiceError` is what the log, the span and
the final report show where the service itself raised nothing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs

from kernel.masking import LINE, bounded, mask, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The names in *known* that *name* may have been meant for, as a hint; empty where none is near."""
    from difflib import get_close_matches  # imported only when something went wrong

    near = get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(repr(match) for match in near)}?" if near else ""


class KernelError(Exception):
    """The base of all that the kernel raises."""


GROUPED = 10  # errors of a group that are told in one line
NESTED = 5  # groups within each other


def one_line(error: BaseException, nested: int = NESTED) -> str:
    """Type and message of *error*, and of what it groups; without secrets, and of a bounded length."""
    if isinstance(error, KernelError):
        return shown(text_of(error), LINE)
    if isinstance(error, BaseExceptionGroup):
        if not nested:
            return f"{type(error).__name__} (more groups within are left out)"
        told = "; ".join(one_line(one, nested - 1) for one in error.exceptions[:GROUPED])
        more = len(error.exceptions) - GROUPED
        return bounded(f"{type(error).__name__}: {told}{f'; and {more} more errors' if more > 0 else ''}", LINE)
    text = bounded(mask(text_of(error)).partition("\n")[0], LINE)
    hints = "".join(f"; {note.removeprefix(HINT)}" for note in getattr(error, "__notes__", ()) if note.startswith(HINT))
    hints = shown(hints, LINE)
    return f"{type(error).__name__}: {text}{hints}" if text else f"{type(error).__name__}{hints}"


def text_of(error: object, say: Callable[[object], str] = str) -> str:
    """What it says of itself, in text that can be encoded; the error of somebody else may be able to do neither."""
    try:
        return encodable(say(error))
    except Exception as failure:  # noqa: BLE001  (it is not ours)
        return f"(no text: {type(failure).__name__})"


def encodable(text: str) -> str:
    """*text* with escapes in place of what UTF-8 lacks, as of the bytes that `os.fsdecode` could not decode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


HINT = "hint: "  # how a note begins that is told with the error
NO_ASYNCIO = ("no running event loop", "no current event loop", "unrecognized yield message", "asyncio is not running")


def hint_at_backend(error: BaseException, backend: str) -> None:
    """Note on an *error* that asyncio is not what runs, where that is what it says; also on those that it groups."""
    if backend != "trio":
        return
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            hint_at_backend(one, backend)
    elif isinstance(error, RuntimeError | TypeError) and any(text in text_of(error) for text in NO_ASYNCIO):
        hint = "what is called needs asyncio, and KERNEL_BACKEND is trio; unset it, or use a library that runs on trio"
        add_note(error, f"{HINT}{hint}", instead_of=HINT)


ORIGIN = "in service "  # how the note begins that says where an error came from


def add_note(error: BaseException, text: str, *, instead_of: str = "") -> None:
    """Note *text* on *error*, and take away the notes that begin with *instead_of*.

    A frozen dataclass, say, takes none, and goes without.
    """
    with contextlib.suppress(Exception):
        if instead_of and any(note.startswith(instead_of) for note in getattr(error, "__notes__", ())):
            error.__notes__ = [note for note in error.__notes__ if not note.startswith(instead_of)]
        error.add_note(text)


@attrs.define(eq=False, repr=False)
class PlanError(KernelError):
    """Something is wrong with what should run, so nothing was started.

    Args:
        what: What is wrong, with the offending name or value in it.
        where: The file and line, or the variable, that says so; empty where there is none.
        hint: What to do about it; empty where the first part says it all.

    """

    what: str
    where: str = attrs.field(default="", kw_only=True)
    hint: str = attrs.field(default="", kw_only=True)

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{where}{self.what}{hint}"


@attrs.define(eq=False, repr=False)
class Problems(PlanError):
    """Several errors at once, so that nobody has to mend them one run at a time."""

    errors: tuple[PlanError, ...] = attrs.field(default=(), kw_only=True)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)

    @staticmethod
    def raise_any(errors: Sequence[PlanError]) -> None:
        """Raise *errors*: nothing for none, the error itself for one, all of them together for more."""
        flat: list[PlanError] = []
        for error in errors:
            flat.extend(error.errors if isinstance(error, Problems) else [error])
        if len(flat) == 1:
            raise flat[0]
        if flat:
            raise Problems(f"{len(flat)} problems", errors=tuple(flat))


class NamingError(PlanError):
    """A name of a service, command or variable is unknown, taken, reserved or malformed."""


@attrs.define(eq=False, repr=False)
class CycleError(PlanError):
    """Services wait for each other; `members` are their names, each waiting for the next."""

    members: tuple[str, ...] = attrs.field(default=(), kw_only=True)


class DeclarationError(PlanError):
    """A service, one of its parameters, or a command is declared in a way that cannot work."""


class NotImportable(PlanError):
    """A service's file does not import; the cause is chained."""


class ConfigError(PlanError):
    """A value in the environment cannot be used; `where` names the variable, and `what` completes the sentence."""

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.where} {self.what}{hint}"


class LeftOutError(PlanError):
    """A service needs the value of one that is not enabled."""


@attrs.define(eq=False, repr=False)
class ServiceError(KernelError):
    """What became of the service of this name."""

    service: str


class NeverServed(ServiceError):
    """The service takes `Serving`, and returned without ever entering it."""

    def __str__(self) -> str:
        return f"{self.service} returned without ever serving: it takes `Serving`, so it must enter `serving(...)`"


class ServedTwice(ServiceError):
    """The service entered `serving` a second time in one attempt."""

    def __str__(self) -> str:
        return f"{self.service} entered `serving(...)` a second time; one attempt serves once"


@attrs.define(eq=False, repr=False)
class StartTimeout(ServiceError):
    """The service was not ready within its start_timeout (seconds); `where` is the line where it stood."""

    seconds: float
    where: str

    def __str__(self) -> str:
        return f"{self.service} was not ready after {self.seconds:g} s; it was at {self.where}"


@attrs.define(eq=False, repr=False)
class StopTimeout(ServiceError):
    """The service was cut `seconds` after it was asked to stop, or by a further signal; `where` is where it stood.

    `limit` is its stop_timeout, for when the shutdown had no time for that.
    """

    seconds: float
    where: str
    forced: bool = False
    limit: float = 0.0

    def __str__(self) -> str:
        if self.forced:
            return f"{self.service} was cancelled by another signal, at {self.where}"
        short = self.seconds < self.limit - 0.001  # by less is no more than rounding
        why = f"; its stop_timeout is {self.limit:g} s, but RUNNER_SHUTDOWNTIMEOUT left no more time" if short else ""
        return (
            f"{self.service} overran: cancelled {self.seconds:.3g} s after the stop was requested, at {self.where}{why}"
        )


@attrs.define(eq=False, repr=False)
class ValueLost(ServiceError):
    """The service needs the value of `provider`, which will not come (back)."""

    provider: str
    reason: str

    def __str__(self) -> str:
        return f"{self.service} needs the value of {self.provider}, which {self.reason}"

    @property
    def short(self) -> str:
        """Without what the provider failed with, for where that is told beside it."""
        return f"needs the value of {self.provider}, which {self.reason.partition(': ')[0]}"


class StrayCancellation(ServiceError):
    """A cancellation came out of the service, but nobody had cancelled it; the original is chained."""

    def __str__(self) -> str:
        return f"{self.service} was cancelled from within: no stop was requested"


@attrs.define(eq=False, repr=False)
class Uncancellable(ServiceError):
    """The service ignored its cancellation; `where` is the line where it stands."""

    where: str

    def __str__(self) -> str:
        return f"{self.service} could not be cancelled; it is at {self.where}"


class BrickError(KernelError):
    """What a brick of the kernel's could not do for a service."""


@attrs.define(eq=False, repr=False)
class CannotListen(BrickError):
    """The address cannot be listened on, for the reason `why`; `hint` says what to change."""

    address: str
    why: str
    hint: str = ""

    def __str__(self) -> str:
        return f"cannot listen on {self.address}: {self.why}{f'; {self.hint}' if self.hint else ''}"


class ServerMissing(BrickError):
    """No ASGI server is installed that runs on this event loop."""


class LifespanFailed(BrickError):
    """An ASGI app says that its startup or its shutdown failed, and raises nothing."""


@attrs.define(eq=False, repr=False)
class ProgramError(BrickError):
    """The external program `program` cannot run, or runs no longer.

    `code` is its exit code, negative for the signal that killed it, and None where it never ran; `lines` are the last
    that it wrote.
    """

    program: str
    what: str
    code: int | None = None
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        last = f"; it last said: {self.lines[-1]}" if self.lines else ""
        return f"{self.program} {self.what}{last}"


class CallError(KernelError):
    """A call to another service that failed.

    Attributes:
        service: The service that was called.
        method: The method.
        message: What went wrong.

    """

    def __init__(self, service: str, method: str, message: str) -> None:
        super().__init__(service, method, message)
        self.service, self.method, self.message = service, method, message

    def __str__(self) -> str:
        return f"{self.service}.{self.method}: {self.message}"


class CallFailed(CallError):
    """The service raised an error that its interface does not declare. It may have been executed.

    Attributes:
        type: The name of the error's class.
        trace_id: The trace in which it happened, in hexadecimal digits; empty where nothing is traced.

    """

    def __init__(self, service: str, method: str, message: str, type: str = "", trace_id: str = "") -> None:  # noqa: A002
        super().__init__(service, method, message)
        self.type, self.trace_id = type, trace_id

    def __str__(self) -> str:
        what = f"{self.type}: {self.message}" if self.type and self.message else self.type or self.message
        return f"{self.service}.{self.method}: {what}{f' (trace {self.trace_id})' if self.trace_id else ''}"


class Unavailable(CallError):
    """Nobody received the call: it was not executed."""


class Overloaded(CallError):
    """The service has as many calls waiting as it takes: it was not executed."""


class DeadlineExceeded(CallError, TimeoutError):
    """There was no answer in time. It may have been executed, or still be."""


class ContractMismatch(CallError):
    """The service that runs elsewhere has another contract than its caller: it was not executed."""


class BadRequest(CallError):
    """The arguments are not of their types, or too large: it was not executed."""
