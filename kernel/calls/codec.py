"""Make shapes from annotations: how values of a type are written as JSON, read back, and described.

From the environment come texts, which are converted. Here nothing may be: each type is checked on both sides,
an error says where in the value it is, and the same pass gives the description that contracts are compared by.
"""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs

from kernel.calls.containers import dict_of, enum_of, literal_of, sequence_of, tuple_of, union_of
from kernel.calls.records import Field, Made, dict_encoder, fields_of, is_record, record_decoder, record_encoder
from kernel.calls.scalars import SCALARS
from kernel.calls.shape import OBJECT, CannotTravel, Convert, Misfit, Shape, words

Binding = Mapping[Any, Any]

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_decode: Any = json.JSONDecoder()


def _refuse(data: object) -> Any:
    raise TypeError(f"{type(data).__name__} is no JSON")


_make: Any = getattr(json.encoder, "c_make_encoder", None)
_FLAGS = (False, False, False)  # keys are not sorted, none is skipped, and there is no NaN
# `JSONEncoder.encode` makes this anew for each value, which takes two thirds of the time for a small value.
_parts = _make and _make(None, _refuse, json.encoder.encode_basestring, None, ":", ",", *_FLAGS)


def _encode(data: object) -> str:
    return "".join(_parts(data, 0)) if _parts else _encoder.encode(data)


def _parse(text: str) -> Any:
    """Parse the JSON in *text*, without searching for surrounding spaces if there are none."""
    try:
        data, end = _decode.scan_once(text, 0)
    except StopIteration:
        return _decode.decode(text)
    return data if end == len(text) else _decode.decode(text)


def write(encode: Convert, value: object) -> bytes:
    """Return *value* as JSON, by *encode*.

    Raises:
        Misfit: It is not of its type.

    """
    try:
        return _encode(encode(value)).encode()
    except RecursionError:
        raise Misfit("nested too deeply to be sent") from None


def read(decode: Convert, payload: bytes) -> Any:
    """Return the value of the JSON in *payload*, by *decode*.

    Raises:
        Misfit: It is not JSON, or of another type.

    """
    try:
        data = _parse(payload.decode())
    except (ValueError, RecursionError) as error:
        raise Misfit(f"expected JSON, got something else: {error}") from None
    try:
        return decode(data)
    except RecursionError:
        raise Misfit("nested too deeply to be read") from None


@attrs.define(eq=False)
class Shapes:
    """Make the shapes of types, each only once.

    Args:
        ignore_unknown: Whether unknown fields of records are ignored, as in a result, or refused, as in an
            argument.
        names: Names that annotations may use in addition to those of their module.
        described: The fields of each record, by the name that refers to it.
        known: The names of the records.

    """

    ignore_unknown: bool = False
    names: Mapping[str, Any] | None = None
    described: dict[str, Any] = attrs.field(factory=dict)
    known: dict[Any, str] = attrs.field(factory=dict)
    _made: dict[Any, Shape] = attrs.field(factory=dict)

    def of(self, tp: Any, binding: Binding | None = None) -> Shape:  # noqa: PLR0911
        """Return the shape of the type *tp*.

        Args:
            tp: The annotation, evaluated.
            binding: What the type variables in it stand for.

        Raises:
            CannotTravel: Its values cannot be sent.

        """
        binding = binding or {}
        tp = _bare(tp)
        if isinstance(tp, TypeVar):
            if tp not in binding:
                raise CannotTravel(f"{tp} stands for any type; say which")
            return self.of(binding[tp])
        origin, args = get_origin(tp) or tp, get_args(tp)
        if origin is Literal:
            return literal_of(args)
        if origin in {Union, types.UnionType}:
            return union_of([self.of(member, binding) for member in args])
        try:
            plain = SCALARS.get(types.NoneType if tp is None else tp)
        except TypeError:  # it has no hash
            plain = None
        if plain is not None:
            return plain
        if origin in _CONTAINERS:
            return self._container(tp, origin, args, binding)
        if isinstance(origin, type) and issubclass(origin, enum.Enum):
            return enum_of(origin)
        if is_record(origin):
            return self._record(origin, tuple(binding.get(arg, arg) for arg in args))
        raise CannotTravel(_refusal(tp))

    def _container(self, tp: Any, origin: Any, args: tuple[Any, ...], binding: Binding) -> Shape:
        if not args and tp != tuple[()]:
            raise CannotTravel(f"{origin.__name__} does not say what is in it; write {_CONTAINERS[origin]}")
        if origin is dict:
            return dict_of(self.of(args[0], binding), self.of(args[1], binding))
        if origin is tuple and (not args or args[-1] is not ...):
            return tuple_of([self.of(item, binding) for item in args])
        return sequence_of(origin, self.of(args[0], binding))

    def _record(self, cls: Any, args: tuple[Any, ...]) -> Shape:
        key = (cls, args)
        if key in self._made:
            return self._made[key]
        name = self._name(cls, args)
        converts: list[Convert] = []  # come last, as a record may hold others of its kind
        shape = self._made[key] = Shape(
            {"ref": name},
            OBJECT,
            lambda value: converts[0](value),  # noqa: PLW0108  (it is not there yet)
            lambda data: converts[1](data),  # noqa: PLW0108
            (dict if typing.is_typeddict(cls) else cls,),
        )
        binding = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
        try:
            found = fields_of(cls, self.names)
        except TypeError as error:
            raise CannotTravel(str(error)) from None
        fields = self.fields(name, found, binding)
        self.described[name].update({field.name: described(field, inner) for field, inner in fields})
        keyed = typing.is_typeddict(cls)
        converts += [
            dict_encoder(name, fields) if keyed else record_encoder(cls, name, fields),
            record_decoder(cls, name, fields, ignore_unknown=self.ignore_unknown),
        ]
        return shape

    def fields(self, owner: str, fields: list[Field], binding: Binding | None = None) -> list[tuple[Field, Shape]]:
        """Return each of *fields* with its shape; *owner* is their class or function, for errors.

        Raises:
            CannotTravel: One of them cannot be sent.

        """
        found = []
        for field in fields:
            try:
                found.append((field, self.of(field.type, binding)))
            except CannotTravel as error:
                raise CannotTravel(f"{owner}.{field.name}: {error}") from None
        return found

    def _name(self, cls: Any, args: tuple[Any, ...]) -> str:
        """Return the name of a record: its class's, with the module if another record has that name."""
        if (cls, args) in self.known:
            return self.known[cls, args]
        name: str = cls.__name__
        if args:
            name += f"[{', '.join(words(self.of(arg).schema) for arg in args)}]"
        if name in self.described:
            name = f"{cls.__module__}.{name}"
        self.described[name] = {}
        self.known[cls, args] = name
        return name


def described(field: Field, shape: Shape) -> dict[str, Any]:
    """Return the schema of a field or a parameter: its type, and its default, if any."""
    found: dict[str, Any] = {"type": shape.schema}
    if field.has_default:
        if isinstance(field.default, Made):
            found["default made by"] = field.default.name
        else:
            try:
                found["default"] = shape.encode(field.default)
            except Misfit:  # None for what must be an int, say, which is never sent
                found["default is"] = repr(field.default)
    elif field.optional:
        found["optional"] = True
    return found


def _bare(tp: Any) -> Any:
    """Return *tp* without wrappers that do not change its values: NewType, Annotated, aliases, Required."""
    while True:
        if isinstance(tp, typing.NewType):
            tp = tp.__supertype__
        elif get_origin(tp) in _WRAPPERS:
            tp = get_args(tp)[0]
        elif type(tp).__name__ == "TypeAliasType":  # Python 3.12's
            tp = tp.__value__
        else:
            return tp


_WRAPPERS = {typing.Annotated, typing.Required, typing.NotRequired, typing.Final}


def _refusal(tp: Any) -> str:
    name = getattr(tp, "__name__", None) or str(tp)
    if tp is Any or tp is object:
        return f"{name} may be anything, which cannot be sent; name a type"
    origin = get_origin(tp) or tp
    module = getattr(origin, "__module__", "")
    if module in {"collections.abc", "typing"}:
        return f"{name} is no type of a value; write list[...], dict[...], or a record"
    return f"a {name} cannot be sent; send plain values, or a record of them: an attrs class, say"


_CONTAINERS = {
    list: "list[int], say",
    set: "set[int], say",
    frozenset: "frozenset[int], say",
    tuple: "tuple[int, ...], say",
    dict: "dict[str, int], say",
}
