"""Every exception of the kernel.

    KernelError
    ├── PlanError                nothing was started; exit code 2
    │   ├── Problems             several of them, reported together
    │   ├── NamingError          a name is unknown, taken, reserved or malformed
    │   ├── CycleError           a dependency cycle
    │   ├── DeclarationError     a service, parameter or command is declared wrongly
    │   ├── NotImportable        a service's file cannot be imported
    │   ├── ConfigError          a value in the environment is not valid
    │   └── LeftOutError         a value is needed from a service that is not enabled
    ├── BrickError               `serve_asgi` or `program` failed
    │   ├── CannotListen         the address cannot be listened on
    │   ├── ServerMissing        no installed ASGI server supports this event loop
    │   ├── LifespanFailed       the ASGI app reported that its lifespan failed
    │   └── ProgramError         the program cannot run, or has ended
    ├── CallError                a call to another service failed
    │   ├── CallFailed           it raised an error that its interface does not declare
    │   ├── Unavailable          no instance received the call
    │   ├── Overloaded           too many calls are waiting for the service
    │   ├── DeadlineExceeded     there was no answer in time; also a TimeoutError
    │   ├── ContractMismatch     the service's contract differs from the caller's
    │   └── BadRequest           the arguments have wrong types, or are too large
    └── ServiceError             the failure of one running service
        ├── NeverServed          it returned without ever serving
        ├── ServedTwice          it entered `serving` twice in one attempt
        ├── StartTimeout         it was not ready in time
        ├── StopTimeout          it exceeded a time limit while stopping, and was cancelled
        ├── ValueLost            a provider that it needs has ended for good
        ├── StrayCancellation    it was cancelled, but not by the kernel
        └── Uncancellable        it ignored its cancellation, and was abandoned

A `PlanError` says what is wrong, where, and what to do. Logs, spans and the final report show a `ServiceError` if the
service itself raised nothing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs

from kernel.masking import LINE, bounded, mask, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint with the names in *known* that are similar to *name*; an empty string if there are none."""
    from difflib import get_close_matches  # imported only when something went wrong

    near = get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(repr(match) for match in near)}?" if near else ""


class KernelError(Exception):
    """The base class of the kernel's exceptions."""


GROUPED = 10  # maximum errors of a group in one line
NESTED = 5  # maximum levels of nested groups


def one_line(error: BaseException, nested: int = NESTED) -> str:
    """Return the type and message of *error*, and of the errors in its group, masked and of limited length."""
    if isinstance(error, KernelError):
        return shown(text_of(error), LINE)
    if isinstance(error, BaseExceptionGroup):
        if not nested:
            return f"{type(error).__name__} (nested groups left out)"
        errors = "; ".join(one_line(each, nested - 1) for each in error.exceptions[:GROUPED])
        more = len(error.exceptions) - GROUPED
        return bounded(f"{type(error).__name__}: {errors}{f'; and {more} more errors' if more > 0 else ''}", LINE)
    text = bounded(mask(text_of(error)).partition("\n")[0], LINE)
    hints = "".join(f"; {note.removeprefix(HINT)}" for note in getattr(error, "__notes__", ()) if note.startswith(HINT))
    hints = shown(hints, LINE)
    return f"{type(error).__name__}: {text}{hints}" if text else f"{type(error).__name__}{hints}"


def chain(error: BaseException | None, *links: str, ungrouped: bool = False) -> Iterator[BaseException]:
    """Yield *error*, then what the first of *links* that it has leads to, and so on; each once, even in a ring.

    Args:
        error: The error; None yields nothing.
        links: ``__cause__``, ``__context__``, or both.
        ungrouped: Whether a group stands for the errors in it alone, with neither itself nor its own links.

    """
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if ungrouped and isinstance(one, BaseExceptionGroup):
            todo += one.exceptions
            continue
        yield one
        todo.append(next((before for link in links if (before := getattr(one, link)) is not None), None))


def text_of(error: object, say: Callable[[object], str] = str) -> str:
    """Return the text of *error*, made encodable. Never raises, even if `str` of a user's error does."""
    try:
        return encodable(say(error))
    except Exception as failure:  # noqa: BLE001  (the user's code)
        return f"(no text: {type(failure).__name__})"


def encodable(text: str) -> str:
    """Return *text* with whatever UTF-8 cannot encode escaped, such as bytes that `os.fsdecode` could not decode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


HINT = "hint: "  # the prefix of a note that is shown with the error
NO_ASYNCIO = ("no running event loop", "no current event loop", "unrecognized yield message", "asyncio is not running")


def hint_at_backend(error: BaseException, backend: str) -> None:
    """Add a note to *error*, or to the errors in its group, if it means that a library needs asyncio but trio runs."""
    if backend != "trio":
        return
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            hint_at_backend(member, backend)
    elif isinstance(error, RuntimeError | TypeError) and any(text in text_of(error) for text in NO_ASYNCIO):
        hint = "the library needs asyncio, but KERNEL_BACKEND is trio; unset it, or use a library that supports trio"
        add_note(error, f"{HINT}{hint}", instead_of=HINT)


ORIGIN = "in service "  # the prefix of the note that says where an error came from


def add_note(error: BaseException, text: str, *, instead_of: str = "") -> None:
    """Add the note *text* to *error*, and remove the notes that begin with *instead_of*.

    Do nothing if the error accepts no notes, for example because it is a frozen dataclass.
    """
    with contextlib.suppress(Exception):
        if instead_of and any(note.startswith(instead_of) for note in getattr(error, "__notes__", ())):
            error.__notes__ = [note for note in error.__notes__ if not note.startswith(instead_of)]
        error.add_note(text)


@attrs.define(eq=False, repr=False)
class PlanError(KernelError):
    """Something is wrong with the services or the configuration, so nothing was started.

    Args:
        what: What is wrong, with the name or value in question.
        where: The file and line, or the variable, where the problem is; empty if there is none.
        hint: How to fix it; empty if *what* makes that clear.

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
    """Several errors, reported together so that they can be fixed together."""

    errors: tuple[PlanError, ...] = attrs.field(kw_only=True)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)

    @staticmethod
    def raise_any(errors: Sequence[PlanError]) -> None:
        """Raise nothing if there are no *errors*, the error itself if there is one, else `Problems`."""
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
    """There is a dependency cycle; `members` are the services in it, each depending on the next."""

    members: tuple[str, ...] = attrs.field(default=(), kw_only=True)


class DeclarationError(PlanError):
    """The declaration of a service, one of its parameters, or a command is wrong."""


class NotImportable(PlanError):
    """A service's file cannot be imported; the cause is chained."""


class ConfigError(PlanError):
    """A value in the environment is not valid; `where` names the variable, and `what` says what is wrong with it."""

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.where} {self.what}{hint}"


class LeftOutError(PlanError):
    """A service needs the value of a service that is not enabled."""


@attrs.define(eq=False, repr=False)
class ServiceError(KernelError):
    """The failure of a service; `service` is its name."""

    service: str


class NeverServed(ServiceError):
    """The service has a `Serving` parameter, but returned without entering it."""

    def __str__(self) -> str:
        return f"{self.service} returned without serving: it takes `Serving`, so it must enter `serving(...)`"


class ServedTwice(ServiceError):
    """The service entered `serving` a second time in one attempt."""

    def __str__(self) -> str:
        return f"{self.service} entered `serving(...)` a second time; each attempt can serve only once"


@attrs.define(eq=False, repr=False)
class StartTimeout(ServiceError):
    """The service was not ready within its start_timeout (`seconds`); `where` is the line of code where it was."""

    seconds: float
    where: str

    def __str__(self) -> str:
        return f"{self.service} was not ready after {self.seconds:g} s; it was at {self.where}"


@attrs.define(eq=False, repr=False)
class StopTimeout(ServiceError):
    """The service was cancelled `seconds` after its stop was requested, or by another signal, at the line `where`.

    `limit` is its stop_timeout in seconds. The shutdown deadline may have left less time.
    """

    seconds: float
    where: str
    forced: bool = False
    limit: float = 0.0

    def __str__(self) -> str:
        if self.forced:
            return f"{self.service} was cancelled by another signal, at {self.where}"
        short = self.seconds < self.limit - 0.001  # smaller differences are rounding errors
        why = f"; its stop_timeout is {self.limit:g} s, but RUNNER_SHUTDOWNTIMEOUT left no more time" if short else ""
        late = f"cancelled {self.seconds:.3g} s after the request, at {self.where}"
        return f"{self.service} did not stop in time: {late}{why}"


@attrs.define(eq=False, repr=False)
class ValueLost(ServiceError):
    """The service needs the value of `provider`, which has ended for good."""

    provider: str
    reason: str

    def __str__(self) -> str:
        return f"{self.service} needs the value of {self.provider}, which {self.reason}"

    @property
    def short(self) -> str:
        """The message without the provider's error, for output that shows it anyway."""
        return f"needs the value of {self.provider}, which {self.reason.partition(': ')[0]}"


class StrayCancellation(ServiceError):
    """The service raised a cancellation that the kernel did not request; the original is chained."""

    def __str__(self) -> str:
        return f"{self.service} was cancelled from within: no stop was requested"


@attrs.define(eq=False, repr=False)
class Uncancellable(ServiceError):
    """The service ignored its cancellation and was abandoned; `where` is the line of code where it is."""

    where: str

    def __str__(self) -> str:
        return f"{self.service} could not be cancelled; it is at {self.where}"


class BrickError(KernelError):
    """One of the kernel's bricks failed."""


@attrs.define(eq=False, repr=False)
class CannotListen(BrickError):
    """The address cannot be listened on, for the reason `why`; `hint` says what to change."""

    address: str
    why: str
    hint: str = ""

    def __str__(self) -> str:
        return f"cannot listen on {self.address}: {self.why}{f'; {self.hint}' if self.hint else ''}"


class ServerMissing(BrickError):
    """No ASGI server is installed that supports this event loop."""


class LifespanFailed(BrickError):
    """An ASGI app reported that its startup or shutdown failed."""


@attrs.define(eq=False, repr=False)
class ProgramError(BrickError):
    """The external program `program` cannot run, or has ended.

    `code` is its exit code, the negative number of the signal that killed it, or None if it never ran. `lines` are the
    last lines of its output.
    """

    program: str
    what: str
    code: int | None = None
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.program} {self.what}{self._said()}"

    def _said(self) -> str:
        """Return the line that explains most: the last about an error if the program failed, else the last."""
        for words in (("fatal", "panic"), ("error",)) if self.code and self.code > 0 else ():
            for line in reversed(self.lines):
                if any(word in line.lower() for word in words):
                    return f"; its error: {line}"
        return f"; its last line: {self.lines[-1]}" if self.lines else ""


class CallError(KernelError):
    """A call to another service failed.

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
    """The service raised an error that its interface does not declare. The call may have been executed.

    Attributes:
        type: The name of the error's class.
        trace_id: The id of the trace, in hexadecimal digits; empty if it was not traced.

    """

    def __init__(self, service: str, method: str, message: str, type: str = "", trace_id: str = "") -> None:  # noqa: A002
        super().__init__(service, method, message)
        self.type, self.trace_id = type, trace_id

    def __str__(self) -> str:
        what = f"{self.type}: {self.message}" if self.type and self.message else self.type or self.message
        return f"{self.service}.{self.method}: {what}{f' (trace {self.trace_id})' if self.trace_id else ''}"


class Unavailable(CallError):
    """No instance of the service received the call. It was not executed."""


class Overloaded(CallError):
    """Too many calls are waiting for the service. It was not executed."""


class DeadlineExceeded(CallError, TimeoutError):
    """There was no answer in time. The call may have been executed, or may still be running."""


class ContractMismatch(CallError):
    """The contract of the service differs from the caller's. The call was not executed."""


class BadRequest(CallError):
    """The arguments have wrong types, or are too large. The call was not executed."""
