"""What other processes can call of a service: a `Protocol` under `@interface`.

Its methods are read from their annotations at first use, so that a type may be written below the
interface that names it.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, Protocol, TypeVar, get_origin, overload

import attrs

from kernel.calls.codec import Shapes, described
from kernel.calls.raised import ErrorShape, shape_of
from kernel.calls.records import NO_DEFAULT, Field, hints_of, record_decoder
from kernel.calls.shape import CannotTravel, Misfit, Shape
from kernel.declare.signature import declared_at
from kernel.errors import DeclarationError, PlanError, Problems

T = TypeVar("T")

TIMEOUT = 10.0  # seconds for a call whose caller has no deadline, where the interface names none

_DECLARED: weakref.WeakKeyDictionary[type, Interface] = weakref.WeakKeyDictionary()


@attrs.frozen(eq=False)
class Method:
    """One method, and how its parameters and its result travel.

    Args:
        interface: The interface's name.
        name: Its name.
        text: The first line of its docstring.
        parameters: Its parameters with their shapes, in order.
        positional: The names of parameters that may be passed by position.
        result: The shape of its result.
        raises: The errors that it declares, by the names of their classes.
        schema: All of it, as data.

    """

    interface: str
    name: str
    text: str
    parameters: tuple[tuple[Field, Shape], ...]
    positional: tuple[str, ...]
    result: Shape
    raises: Mapping[str, ErrorShape]
    schema: Mapping[str, Any]
    _decode: Callable[[Any], dict[str, Any]]
    _encoders: Mapping[str, Callable[[Any], Any]]
    _required: frozenset[str]

    @property
    def declared(self) -> tuple[type[BaseException], ...]:
        """Return the classes of the errors that it declares."""
        return tuple(shape.cls for shape in self.raises.values())

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the given arguments of a call as JSON, by name.

        Raises:
            Misfit: They have wrong types or names, or one is missing.

        """
        given = kwargs
        if args:
            if len(args) > len(self.positional):
                raise Misfit(f"takes {len(self.positional)} arguments by position, got {len(args)}")
            given = dict(zip(self.positional, args, strict=False))
            for name in kwargs:
                if name in given:
                    raise Misfit(f"got the argument {name!r} twice")
            given |= kwargs
        made = {}
        for name, value in given.items():
            encoder = self._encoders.get(name)
            if encoder is None:
                raise Misfit(f"takes no argument {name!r}")
            try:
                made[name] = encoder(value)
            except Misfit as error:
                raise error.within(f".{name}") from None
        if not self._required <= made.keys():
            raise Misfit(f"the argument {min(self._required - made.keys())!r} is missing")
        return made

    def decode(self, data: Any) -> dict[str, Any]:
        """Return the arguments in JSON, by name.

        Raises:
            Misfit: They have wrong types or names, or one is missing.

        """
        if type(data) is not dict:
            raise Misfit(f"expected an object of the arguments, got {type(data).__name__}")
        for name in data:
            if name not in self._encoders:
                raise Misfit(f"takes no argument {name!r:.60}")
        if not self._required <= data.keys():
            raise Misfit(f"the argument {min(self._required - data.keys())!r} is missing")
        return self._decode(data)


@attrs.frozen(eq=False)
class Interface:
    """What `interface` makes from a class.

    Args:
        cls: The class.
        raises: The errors that reach the caller as themselves.
        timeout: Seconds for a call whose caller has no deadline.
        names: Names that annotations may use in addition to those of the module.

    """

    cls: type
    raises: tuple[type[BaseException], ...]
    timeout: float
    names: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The class's."""
        return self.cls.__name__

    @property
    def text(self) -> str:
        """The first line of its docstring; empty if it has none of its own, since that of `Protocol` says nothing."""
        return inspect.cleandoc(self.cls.__doc__ or "").partition("\n")[0]

    @functools.cached_property
    def methods(self) -> Mapping[str, Method]:
        """Return its methods by name.

        Raises:
            DeclarationError: Something in them cannot be called from other processes; several are `Problems`.

        """
        return _Reader(self).read()


@overload
def interface(cls: type[T], /) -> type[T]: ...
@overload
def interface(
    *, raises: Collection[type[BaseException]] = (), timeout: float = TIMEOUT
) -> Callable[[type[T]], type[T]]: ...


def interface(
    cls: type[T] | None = None,
    /,
    *,
    raises: Collection[type[BaseException]] = (),
    timeout: float = TIMEOUT,
) -> type[T] | Callable[[type[T]], type[T]]:
    """Declare a `Protocol` whose methods can be called in whichever process the service that serves it runs.

    Each public method is an ``async def`` whose parameters and result are annotated with types that can be sent.

    Args:
        cls: The class, if the decorator is used without parentheses.
        raises: The errors that reach the caller as themselves, matched by their exact class; any other becomes a
            `kernel.CallFailed`.
        timeout: Seconds for a call whose caller has no deadline.

    Raises:
        DeclarationError: *raises* contains something that is not an exception class, or *timeout* is not positive.

    """
    frame = sys._getframe(1)  # noqa: SLF001  (for a class within a function)

    def declare(cls: type[T]) -> type[T]:
        name, where = cls.__name__, _class_at(cls)
        for error in raises:
            if not (isinstance(error, type) and issubclass(error, Exception)):
                raise DeclarationError(
                    f"interface {name} raises {error!r}", where=where, hint="give classes of errors: Exception's"
                )
        if not 0 < timeout < float("inf"):
            raise DeclarationError(f"interface {name}: timeout is {timeout}; it must be positive", where=where)
        names = dict(frame.f_locals) if "<locals>" in cls.__qualname__ else None
        _DECLARED[cls] = Interface(cls, tuple(raises), timeout, names)
        return cls

    return declare if cls is None else declare(cls)


def interface_of(tp: Any) -> Interface | None:
    """Return the interface that *tp* is declared to be; None if it is none."""
    tp = get_origin(tp) or tp
    return _DECLARED.get(tp) if isinstance(tp, type) else None


def _class_at(cls: type) -> str:
    """Return file and line of a class."""
    for value in vars(cls).values():
        if inspect.isfunction(value) and value.__module__ == cls.__module__:  # others are `typing`'s
            return declared_at(value).rpartition(":")[0]
    return cls.__module__


# -- reading -----------------------------------------------------------------------------------------------------


class _Reader:
    """Read the methods of a class, and collect the problems with them."""

    def __init__(self, owner: Interface) -> None:
        self._owner = owner
        names = owner.names
        self._arguments = Shapes(names=names)
        self._results = Shapes(True, names, self._arguments.described, self._arguments.known)  # noqa: FBT003
        self._problems: list[PlanError] = []

    def read(self) -> dict[str, Method]:
        """Return all methods, by name.

        Raises:
            DeclarationError: A method is not valid.

        """
        errors = self._errors()
        found: dict[str, Method] = {}
        for name, value in self._members().items():
            if not inspect.isfunction(value):
                self._refuse(f"{name} is no method", _class_at(self._owner.cls), "an interface has methods alone")
                continue
            method = self._method(name, value, errors)
            if method is not None:
                found[name] = method
        if not found and not self._problems:
            self._refuse("no method", _class_at(self._owner.cls), "write an `async def` in it")
        Problems.raise_any(self._problems)
        return found

    def _members(self) -> dict[str, Any]:
        """Return the public names of the class and its bases, those of the bases first."""
        found: dict[str, Any] = {}
        for cls in reversed(self._owner.cls.__mro__):
            if cls not in {object, Protocol, Generic}:
                found |= dict.fromkeys(name for name in vars(cls).get("__annotations__", {}) if name[0] != "_")
                found |= {name: value for name, value in vars(cls).items() if name[0] != "_"}
        return found

    def _refuse(self, what: str, where: str, hint: str) -> None:
        self._problems.append(DeclarationError(f"interface {self._owner.name}: {what}", where=where, hint=hint))

    def _errors(self) -> dict[str, ErrorShape]:
        found: dict[str, ErrorShape] = {}
        for cls in self._owner.raises:
            try:
                found[cls.__name__] = shape_of(cls, self._results)
            except (CannotTravel, TypeError) as error:
                self._refuse(f"raises {cls.__name__}: {error}", _class_at(cls), "an error crosses with its fields")
        return found

    def _method(self, name: str, fn: Callable[..., Any], errors: Mapping[str, ErrorShape]) -> Method | None:
        where = declared_at(fn)
        if not inspect.iscoroutinefunction(fn):
            stream = inspect.isasyncgenfunction(fn)
            hint = "a call has one result: return a list, or take an offset" if stream else "write `async def`"
            self._refuse(f"{name} is {'an async generator' if stream else 'not async'}", where, hint)
            return None
        try:
            hints = hints_of(fn, self._owner.names)
        except TypeError as error:
            self._refuse(f"{name}: {error}", where, "see that it can")
            return None
        before = len(self._problems)
        fields = [self._parameter(name, parameter, hints, where) for parameter in _parameters(fn)]
        result = self._shape(f"the result of {name}", hints.get("return", NO_DEFAULT), self._results, where)
        if len(self._problems) > before or result is None:
            return None
        parameters = tuple(field for field in fields if field is not None)
        described_parameters = {field.name: described(field, shape) for field, shape in parameters}
        schema = {
            "parameters": described_parameters,
            "result": result.schema,
            "raises": {name: error.schema for name, error in errors.items()},
        }
        return Method(
            self._owner.name,
            name,
            (inspect.getdoc(fn) or "").partition("\n")[0],
            parameters,
            tuple(each.name for each in _parameters(fn) if each.kind is each.POSITIONAL_OR_KEYWORD),
            result,
            errors,
            {**schema, "types": _reached(schema, self._results.described)},
            record_decoder(dict, name, list(parameters), ignore_unknown=False),
            {field.name: shape.encode for field, shape in parameters},
            frozenset(field.name for field, _ in parameters if not field.optional),
        )

    def _parameter(
        self, method: str, parameter: inspect.Parameter, hints: Mapping[str, Any], where: str
    ) -> tuple[Field, Shape] | None:
        name = parameter.name
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            self._refuse(f"{method} takes {str(parameter).partition(':')[0]}", where, "give each parameter a name")
            return None
        shape = self._shape(f"{method}: parameter {name!r}", hints.get(name, NO_DEFAULT), self._arguments, where)
        if shape is None:
            return None
        return Field(name, hints[name], parameter.default is not NO_DEFAULT, parameter.default, name), shape

    def _shape(self, what: str, tp: Any, shapes: Shapes, where: str) -> Shape | None:
        if tp is NO_DEFAULT:
            self._refuse(f"{what} has no annotation", where, "say its type")
            return None
        try:
            return shapes.of(tp)
        except CannotTravel as error:
            text, _, hint = str(error).partition("; ")
            self._refuse(f"{what}: {text}", where, hint)
            return None


def _parameters(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(fn).parameters.values())[1:]


def _reached(schema: Any, described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the records that *schema* refers to, directly or through others."""
    found: dict[str, Any] = {}
    todo = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, Mapping):
            name = part.get("ref")
            if isinstance(name, str) and len(part) == 1 and name in described and name not in found:
                found[name] = described[name]
                todo.append(described[name])
            todo += part.values()
        elif isinstance(part, list):
            todo += part
    return dict(sorted(found.items()))
