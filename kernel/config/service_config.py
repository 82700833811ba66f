"""The environment as typed values: the config of each service.

Every wrong value is collected, so that all are reported in one go, each with its variable, its value (secrets
masked), what was expected, and where the field is declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import attrs

from kernel.config.values import Secret, UnreadableType, expected, is_secret, parse_list, register, structure
from kernel.errors import ConfigError, text_of
from kernel.masking import MASK, add
from kernel.stacks import shorten

T = TypeVar("T")


def variable(service: str, field: str) -> str:
    """The variable that a config's *field* is read from, as ``EXAMPLE_DATABASE_PATH``."""
    return f"{service}_{field}".replace("-", "_").upper()


def variables(service: str, cls: type) -> dict[str, str]:
    """The variables of a service's config, each with its field's name."""
    return {
        variable(service, field.alias or field.name): field.alias or field.name
        for field in attrs.fields(cls)
        if field.init
    }


def read_config(service: str, cls: type[T], environ: Mapping[str, str]) -> tuple[T | None, list[ConfigError]]:
    """An instance of the attrs class *cls* from the variables of *service*, and all that is wrong with them.

    An empty variable is an unset one. The instance is None where anything is wrong.
    """
    errors: list[ConfigError] = []
    values: dict[str, Any] = {}
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.resolve_types(cast("Any", cls), include_extras=True))
    for field in fields:
        if not field.init:
            continue
        argument = field.alias or field.name
        name = variable(service, argument)
        text = environ.get(name, "")
        if is_secret(field.type):
            add(text, *parse_list(text))  # known before anybody can speak of it
        if text == "":
            if field.default is attrs.NOTHING:
                errors.append(
                    ConfigError(
                        "is not set, and has no default",
                        where=name,
                        hint=f"expected {expected(field.type)} ({_declared(cls, field.name)})",
                    )
                )
            continue
        values[argument], error = _tried(structure, text, field.type)
        if error is not None:
            errors.append(_bad_value(name, text, cls, field, error))
    if errors:
        return None, errors
    config, error = _tried(cls, **values)
    register(config)
    return config, [] if error is None else [_refused(service, cls, values, error, environ)]


def _tried(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, BaseException | None]:
    """What *call* gives, or what it raises: converters and validators of the user's may raise anything."""
    try:
        return call(*args, **kwargs), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: ASYNC103, BLE001  (nothing awaits here: each is a bad value)
        return None, error  # noqa: ASYNC104


def _declared(cls: type, field: str) -> str:
    """File, line and name of a field; the line of the class where the field's own cannot be had."""
    import inspect

    try:
        lines, first = inspect.getsourcelines(cls)
        offset = next((i for i, line in enumerate(lines) if re.match(rf"\s+{field}\s*[:=]", line)), 0)
        path = shorten(inspect.getsourcefile(cls) or "?")
    except (OSError, TypeError):
        return f"{cls.__name__}.{field}"
    return f"{cls.__name__}.{field}, {path}:{first + offset}"


def _bad_value(name: str, text: str, cls: type, field: attrs.Attribute[Any], error: BaseException) -> ConfigError:
    secret = is_secret(field.type)
    shown = MASK if secret else repr(text)
    hint = f"expected {expected(field.type)} ({_declared(cls, field.name)})"
    if text.startswith("tcp://"):
        hint += "; it looks like a Kubernetes service link: set enableServiceLinks: false on the pod"
    if isinstance(error, UnreadableType):
        return ConfigError(
            f"cannot be read into a field of type {expected(field.type)}",
            where=name,
            hint=f"use a plain type, a list, an enum or a Literal ({_declared(cls, field.name)})",
        )
    return ConfigError(f"is {shown}", where=name, hint=hint)


def _masked(words: str, text: str, value: object) -> str:
    """*words* without the secret that was read from *text* as *value*, nor any part of it if it is a list."""
    shown = {text, *parse_list(text), str(value.reveal()) if isinstance(value, Secret) else ""} - {""}
    for secret in sorted(shown, key=len, reverse=True):
        words = words.replace(secret, MASK)
    return words


def _refused(
    service: str, cls: type, values: Mapping[str, Any], error: BaseException, environ: Mapping[str, str]
) -> ConfigError:
    """A validator of *cls* refused a value: the one without which the rest is accepted is to blame."""
    fields = {field.alias or field.name: field for field in attrs.fields(cls)}

    def accepts(rest: Mapping[str, Any]) -> bool:
        _, refusal = _tried(cls, **rest)
        return refusal is None

    blamed = [name for name in values if accepts({other: values[other] for other in values if other != name})]
    if len(blamed) != 1:
        blamed = list(values)
    secret = any(is_secret(fields[name].type) for name in blamed)
    why = type(error).__name__ if secret else text_of(error.args[0] if error.args else error)
    for name, field in fields.items():  # a validator may tell of other fields than its own
        if is_secret(field.type):
            why = _masked(why, environ.get(variable(service, name), ""), values.get(name))
    shown = " and ".join(MASK if secret else repr(environ.get(variable(service, name), "")) for name in blamed)
    return ConfigError(
        f"is {shown}: {why}" if shown else f"was refused: {why}",
        where=", ".join(variable(service, name) for name in blamed) or cls.__name__,
        hint=f"declared at {_declared(cls, fields[blamed[0]].name if blamed else '')}",
    )
