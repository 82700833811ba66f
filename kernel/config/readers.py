"""Convert the text of a variable to a value of a field's type, and back.

`reader_of` returns a `Reader` for a type, or raises: a field of any other type is refused even if its variable is not
set.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterable, Sequence
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import attrs

from kernel.annotations import attrs_class, is_union, model_kind, type_name, unwrap
from kernel.config.scalars import SCALARS, by_name
from kernel.config.values import SECONDS, Secret, parse_duration, parse_list, write_seconds


class UnreadableType(Exception):
    """A type that no text can be converted to; *instead* says what to write instead."""

    def __init__(self, tp: Any, instead: str) -> None:
        super().__init__(f"{type_name(tp)}; {instead}")
        self.type = tp
        self.instead = instead


@attrs.frozen
class Reader:
    """Reads and writes the texts of one type.

    Args:
        type: The type as people write it, with its choices, if any.
        words: The expected format, to complete "expected ...": "a whole number".
        read: Returns the value of a text that is not empty; may raise any exception if the text is not valid.
        write: Returns a text for a value; call it through `written`, which checks the result.
        secret: Whether the text must not be shown.
        rank: The order in which a union tries its members, lowest first. A type that accepts any text comes last.
        mark: The character that distinguishes a list or a dict from a single value; empty for a single value.

    """

    type: str
    words: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]
    secret: bool = False
    rank: int = 0
    mark: str = ""

    def written(self, value: Any) -> str:
        """Return a text from which *value* can be read.

        Raises:
            ValueError: There is no such text.

        """
        try:
            text = self.write(value)
            same = bool(text) and "\0" not in text and self.read(text) == value
        except Exception as error:
            raise ValueError(f"no text represents this {self.type}") from error
        if not same:
            raise ValueError(f"no text represents this {self.type}")
        return text


def reader_of(tp: Any) -> Reader:  # noqa: PLR0911  (one for each kind)
    """Return the reader for the type *tp*.

    Raises:
        UnreadableType: No text can be converted to this type.

    """
    bare = unwrap(tp)
    args = get_args(bare)
    origin = get_origin(bare) or bare
    if origin is Annotated:
        return _seconds() if _is_seconds(args) else reader_of(args[0])
    if origin is Secret:
        return _masked(tp, args)
    if is_union(bare):
        return _union(bare, args)
    if origin is Literal:
        return _literal(args)
    if isinstance(bare, type) and issubclass(bare, enum.Enum) and len(bare.__members__):
        return _enumeration(bare)
    if origin in _COLLECTIONS:
        return _collection(tp, origin, args)
    if origin is dict and len(args) == 2:  # noqa: PLR2004
        return _dict(tp, *args)
    scalar = SCALARS.get(bare) if isinstance(bare, type) else None
    scalar = scalar or by_name(bare)
    if scalar is None:
        raise UnreadableType(tp, _instead(tp))
    return Reader(type_name(bare), scalar.words, scalar.read, scalar.write, rank=scalar.rank)


# -- what to write instead ---------------------------------------------------------------------------------------

_LIKE_LISTS = {
    *("deque", "Iterable", "Iterator", "Collection", "Container", "MutableSequence", "Generator", "UserList", "array"),
    *("Reversible", "Sequence"),
}
_LIKE_SETS = {"Set", "AbstractSet", "MutableSet"}
_LIKE_DICTS = {"dict", "Mapping", "MutableMapping", "defaultdict", "OrderedDict", "Counter", "ChainMap", "UserDict"}


def _instead(tp: Any) -> str:  # noqa: PLR0911  (one for each kind)
    bare = unwrap(tp)
    origin, args = get_origin(bare) or bare, get_args(bare)
    name = getattr(origin, "__name__", "")
    if attrs_class(tp) is not None:
        return "an attrs class can be a field of its own, `X` or `X | None`, but not part of another type"
    if kind := model_kind(tp):
        return f"{name} is {kind}: make it an attrs class"
    if name in _LIKE_DICTS:
        return f"write dict[str, {_part(args[1:2])}]"
    if name in _LIKE_SETS:
        return f"write frozenset[{_part(args)}]"
    if name in _LIKE_LISTS or origin in _COLLECTIONS:
        return f"write list[{_part(args)}]"
    if isinstance(tp, TypeVar):
        return "give the class a type argument, such as Config[int]"
    if tp is None or tp is NoneType or bare in {Any, object}:
        return "annotate the field with a specific type, such as str"
    if name == "Callable":
        return "use attrs.field(init=False) for what does not come from the environment, or remove the field"
    return "write str, and convert it in the service"


def _part(args: Sequence[Any]) -> str:
    """Return the element type to suggest in an error: the given one, if it can be read."""
    try:
        reader = reader_of(args[0]) if args else None
    except UnreadableType:
        reader = None
    return type_name(args[0]) if reader and not reader.mark else "str"


# -- durations and secrets ---------------------------------------------------------------------------------------


def _is_seconds(args: Sequence[Any]) -> bool:
    return args[0] is float and SECONDS in args[1:]


def _seconds() -> Reader:
    words = "a duration such as 10s, 1m30s, 500ms or a number of seconds"
    return Reader("Seconds", words, parse_duration, write_seconds, rank=8)


def _masked(tp: Any, args: Sequence[Any]) -> Reader:
    inner = _inner(tp, args[0] if args else str)
    return attrs.evolve(
        inner,
        type=f"Secret[{inner.type}]",
        read=lambda text: Secret(inner.read(text)),
        write=lambda value: inner.write(value.reveal()),
        secret=True,
    )


def _inner(tp: Any, arg: Any) -> Reader:
    """Return the reader for a part of *tp*; if there is none, raise an error about *tp* as a whole."""
    if attrs_class(arg) is not None:
        instead = "an attrs class can be a field of its own, `X` or `X | None`, but not part of another type"
        if (get_origin(unwrap(tp)) or unwrap(tp)) is Secret:
            instead = f"write {type_name(arg)}, and make its secret fields Secret"
        raise UnreadableType(tp, instead)
    try:
        return reader_of(arg)
    except UnreadableType as error:
        raise UnreadableType(tp, f"{type_name(error.type)} cannot be read from a variable: {error.instead}") from error


# -- one of several ----------------------------------------------------------------------------------------------


def _union(tp: Any, args: Sequence[Any]) -> Reader:
    members = [_inner(tp, arg) for arg in args if arg is not NoneType]
    if not members:
        raise UnreadableType(tp, "annotate the field with a specific type, such as str")

    def read(text: str) -> Any:
        failure: Exception = ValueError(text)
        for member in sorted(members, key=lambda member: _when(member, text)):
            try:
                return member.read(text)
            except Exception as error:  # noqa: BLE001  (the next member may accept it)
                failure = error
        raise failure

    def write(value: Any) -> str:
        for member in members:
            try:
                text = member.written(value)
                again = read(text)
            except ValueError:
                continue
            if type(again) is type(value) and again == value:
                return text
        raise ValueError(value)

    return Reader(
        " | ".join([*(member.type for member in members), *(["None"] if NoneType in args else [])]),
        " or ".join(dict.fromkeys(member.words for member in members)),
        read,
        write,
        secret=any(member.secret for member in members),
        rank=max(member.rank for member in members),
        mark="".join(member.mark for member in members),
    )


_LAST = 99


def _when(member: Reader, text: str) -> int:
    """Return the rank of this *member* of a union for *text*: lists come last unless the text contains a comma."""
    return member.rank if not member.mark or any(mark in text for mark in member.mark) else _LAST


def _literal(args: Sequence[Any]) -> Reader:
    texts = {
        _plain(choice) or str(choice): choice for choice in reversed(args)
    }  # if two have the same text, the first wins

    def read(text: str) -> Any:
        for candidate in (text, text.strip()):
            if candidate in texts:
                return texts[candidate]
        return _same(text, args)

    shown = list(texts)[::-1]
    words = f"one of {', '.join(shown)}"
    return Reader(_choices(shown), words, read, lambda value: _plain(_member(value, args)))


def _enumeration(cls: type[enum.Enum]) -> Reader:
    members = list(cls)
    flags = issubclass(cls, enum.Flag)
    texts = {_plain(member): member for member in reversed(members)}

    def read(text: str) -> Any:
        for candidate in (text, text.strip()):
            if candidate in texts:
                return texts[candidate]
        steps: tuple[Callable[[], enum.Enum], ...] = (
            lambda: cls(text),  # calls the class's own `_missing_`
            lambda: cls(_same(text, [member.value for member in members])),
            lambda: cls[text.strip()],
        )
        for step in steps:
            with contextlib.suppress(Exception):  # the user's `_missing_` may raise any exception
                return step()
        if flags:
            return _flags(cls, text)
        raise ValueError(text)

    def write(value: Any) -> str:
        if flags and value not in members:
            return "|".join(member.name or "" for member in value) or "0"
        return _plain(value) if texts.get(_plain(value)) is value else value.name

    shown = [member.name or "" for member in members] if flags else list(texts)[::-1]
    words = f"{'any' if flags else 'one'} of {', '.join(shown)}{', with | between' if flags else ''}"
    return Reader(_choices(shown), words, read, write)


def _flags(cls: Any, text: str) -> Any:
    """Read several members of a flag enum, by name with ``|`` between or as their combined number."""
    every = cls(0)
    for member in cls:
        every |= member
    if text.strip().isdecimal():
        number = int(text)
        if number & ~every.value:
            raise ValueError(text)
        return cls(number)
    found = cls(0)
    for name in text.split("|"):
        found |= cls[name.strip()]
    return found


def _plain(value: Any) -> str:
    """Return the text for *value*, one of several choices; empty if it can only be written by name."""
    if isinstance(value, enum.Enum):
        return _plain(value.value) or value.name
    try:
        reader = reader_of(type(value))
    except UnreadableType:
        return ""
    return "" if reader.mark else reader.write(value)


def _same(text: str, values: Iterable[Any]) -> Any:
    """Return the member of *values* that *text* also means: ``1.50`` means 1.5.

    Raises:
        ValueError: There is no such member.

    """
    for value in values:
        try:
            again = reader_of(type(value)).read(text)
        except Exception:  # noqa: BLE001, S112  (not a text of this value's type)
            continue
        if again == value:
            return value
    raise ValueError(text)


def _member(value: Any, values: Sequence[Any]) -> Any:
    """Return the member of *values* that equals *value* and has its type, since 1 == True."""
    for known in values:
        if type(known) is type(value) and known == value:
            return known
    raise ValueError(value)


def _choices(shown: Sequence[str]) -> str:
    return " | ".join(shown)


# -- several -----------------------------------------------------------------------------------------------------

_COLLECTIONS: dict[Any, Callable[[Iterable[Any]], Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Sequence: tuple,
}


def _collection(tp: Any, origin: Any, args: Sequence[Any]) -> Reader:
    if origin is tuple and args and args[-1] is not ...:
        return _fixed(tp, args)
    part = _single(tp, args[0] if args else str)
    make = _COLLECTIONS[origin]
    name = getattr(origin, "__name__", str(origin))

    def write(value: Any) -> str:
        parts = [part.written(item) for item in value]
        return ",".join(sorted(parts) if make in {set, frozenset} else parts) or ","

    return Reader(
        f"{name}[{part.type}{', ...' if origin is tuple else ''}]",
        f"a comma-separated list, each part {part.words}",
        lambda text: make(part.read(item) for item in parse_list(text)),
        write,
        secret=part.secret,
        rank=10,
        mark=",",
    )


def _fixed(tp: Any, args: Sequence[Any]) -> Reader:
    parts = [_single(tp, arg) for arg in args]

    def read(text: str) -> tuple[Any, ...]:
        return tuple(part.read(text) for part, text in zip(parts, parse_list(text), strict=True))

    def write(value: Any) -> str:
        return ",".join(part.written(of) for part, of in zip(parts, value, strict=True))

    return Reader(
        f"tuple[{', '.join(one.type for one in parts)}]",
        f"{len(parts)} parts with commas between: {', '.join(one.words for one in parts)}",
        read,
        write,
        secret=any(part.secret for part in parts),
        rank=10,
        mark=",",
    )


def _single(tp: Any, arg: Any) -> Reader:
    """Return the reader for the elements of *tp*, which must be single values: lists cannot be nested."""
    reader = _inner(tp, arg)
    if reader.mark:
        instead = "lists cannot be nested: write str, and split it in the service"
        raise UnreadableType(tp, instead)
    return reader


def _dict(tp: Any, key: Any, value: Any) -> Reader:
    part = _single(tp, value)
    if unwrap(key) is not str:
        raise UnreadableType(tp, f"write dict[str, {type_name(value)}]")

    def read(text: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for pair in parse_list(text):
            name, equals, rest = pair.partition("=")
            name = name.rstrip()
            if not name or not equals or name in found:
                raise ValueError(text)
            found[name] = part.read(rest.lstrip())
        return found

    def write(value: Any) -> str:
        return ",".join(f"{name}={part.write(of)}" for name, of in value.items()) or ","

    return Reader(
        f"dict[str, {part.type}]",
        f"name=value pairs with commas between, each value {part.words}",
        read,
        write,
        secret=part.secret,
        rank=9,
        mark="=",
    )
