"""How declared errors of an interface travel: as the same class, with their fields and their message."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from kernel.calls.codec import Shapes, described
from kernel.calls.records import error_fields, record_decoder, record_encoder
from kernel.calls.shape import Convert, Misfit
from kernel.errors import text_of

_PLAIN = {str, int, bool, float, type(None)}


@attrs.frozen(eq=False)
class ErrorShape:
    """How one class of errors travels.

    Args:
        cls: The class itself, without its subclasses.
        schema: Its fields; None for an error without fields, whose `args` travel as they are.

    """

    cls: type[BaseException]
    schema: Any
    _encode: Convert
    _decode: Convert

    def encode(self, error: BaseException) -> dict[str, Any]:
        """Encode *error* as JSON.

        Raises:
            Misfit: A field does not have its declared type.

        """
        return {"type": self.cls.__name__, "message": text_of(error), "fields": self._encode(error)}

    def decode(self, data: Mapping[str, Any]) -> BaseException:
        """Return the error that *data* describes.

        Raises:
            Misfit: *data* does not fit.

        """
        error: BaseException = self._decode(data.get("fields"))
        message = data.get("message")
        if isinstance(message, str) and text_of(error) != message:
            error.args = (message,)
        return error


def shape_of(cls: type[BaseException], shapes: Shapes) -> ErrorShape:
    """Return how errors of the class *cls* travel.

    Raises:
        CannotTravel: A field cannot be sent.
        TypeError: The parameters of its ``__init__`` cannot be determined.

    """
    found = error_fields(cls, shapes.names)
    if found is None:
        return ErrorShape(cls, None, _encode_args, lambda data: _decode_args(cls, data))
    fields = shapes.fields(cls.__name__, found)
    schema = {field.name: described(field, shape) for field, shape in fields}
    decode = record_decoder(cls, cls.__name__, fields, ignore_unknown=True)
    return ErrorShape(cls, schema, record_encoder(cls, cls.__name__, fields), decode)


def _encode_args(error: BaseException) -> list[Any]:
    for value in error.args:
        if type(value) not in _PLAIN or (type(value) is float and not math.isfinite(value)):
            raise Misfit(f"{type(error).__name__} holds a {type(value).__name__}, and declares no fields")
    return list(error.args)


def _decode_args(cls: type[BaseException], data: Any) -> BaseException:
    if type(data) is not list:
        raise Misfit(f"expected the arguments of {cls.__name__}, got {type(data).__name__}")
    try:
        return cls(*data)
    except Exception as error:
        raise Misfit(f"{cls.__name__} refuses them: {type(error).__name__}: {text_of(error)}") from error
