"""Compare what a caller relies on with what a service in another process offers.

A contract is plain data: each service publishes its own, and each caller compares it with the contract that it was
written for. A change is allowed if every call that was valid before is still valid after it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from kernel.calls.interface import Interface
from kernel.calls.shape import TAG, words

Methods = Mapping[str, Mapping[str, Any]]


def contract_of(interface: Interface) -> dict[str, Any]:
    """Return the schema of each method of *interface*, by name.

    Raises:
        DeclarationError: Something in it cannot be called from other processes.

    """
    return {name: dict(method.schema) for name, method in interface.methods.items()}


def digest(methods: Methods) -> str:
    """Return a digest of this contract, in 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(methods, sort_keys=True).encode()).hexdigest()[:16]


def misfits(wanted: Methods, offered: Methods) -> list[str]:
    """Return a sentence for each thing that a caller written for *wanted* cannot rely on if *offered* is served.

    Allowed are a new method, a new parameter or field with a default, a wider parameter and a narrower result.
    """
    found: list[str] = []
    for name, method in wanted.items():
        other = offered.get(name)
        if other is None:
            found.append(f"there is no method {name!r}")
            continue
        try:
            found += dict.fromkeys(_of_method(name, method, other))  # each once, though several members may differ
        except (AttributeError, KeyError, TypeError, ValueError):
            found.append(f"{name}: its schema cannot be read")
    return found


def _of_method(name: str, wanted: Mapping[str, Any], offered: Mapping[str, Any]) -> Iterator[str]:
    arguments = _Flow(wanted["types"], offered["types"], strict=True)
    results = _Flow(offered["types"], wanted["types"], strict=False)
    yield from arguments.fields(f"{name}: parameter ", wanted["parameters"], offered["parameters"])
    yield from results.value(f"{name}: its result", offered["result"], wanted["result"])
    for error, fields in offered["raises"].items():
        if error not in wanted["raises"]:
            yield f"{name} raises {error}, which is not declared here"
        elif (fields is None) != (wanted["raises"][error] is None):
            yield f"{name}: {error} has other fields"
        elif fields is not None:
            yield from results.fields(f"{name}: {error}.", fields, wanted["raises"][error])


@attrs.define(eq=False)
class _Flow:
    """Compare what is sent with what is read.

    Args:
        sent: The records of the side that sends.
        read: The records of the side that reads.
        strict: Whether the reader refuses fields that it does not know.

    """

    sent: Mapping[str, Any]
    read: Mapping[str, Any]
    strict: bool
    _seen: set[tuple[str, str]] = attrs.field(factory=set)

    def fields(self, where: str, sent: Mapping[str, Any], read: Mapping[str, Any]) -> Iterator[str]:
        """Return the problems with named fields; a field that is not sent needs a default."""
        for name, field in read.items():
            mine = sent.get(name)
            if mine is None:
                if set(field) == {"type"}:
                    yield f"{where}{name!r} is new and has no default" if self.strict else f"{where}{name!r} is gone"
                continue
            yield from self.value(f"{where}{name!r}", mine["type"], field["type"])
            yield from self._defaults(f"{where}{name!r}", mine, field)
        if self.strict:
            for name in sent.keys() - read.keys():
                yield f"{where}{name!r} is gone"

    def value(self, where: str, sent: Any, read: Any) -> Iterator[str]:
        """Return the problems if a value of the type *sent* is read as the type *read*."""
        if sent == read and isinstance(sent, str):
            return
        if _kind(sent) == "union" or _kind(read) == "union":
            for member in _members(sent):
                yield from self._member(where, member, sent, read)
        elif _kind(sent) == _kind(read) == "ref":
            pair: tuple[str, str] = (sent["ref"], read["ref"])
            if pair not in self._seen:  # a record within itself is compared once
                self._seen.add(pair)
                yield from self.fields(f"{where}, field ", self.sent[pair[0]], self.read[pair[1]])
        elif not _fits(sent, read):
            yield self._changed(where, sent, read)
        else:
            for mine, other in zip(_parts(sent), _parts(read), strict=False):
                yield from self.value(where, mine, other)

    def _member(self, where: str, member: Any, sent: Any, read: Any) -> Iterator[str]:
        """Return the problems with one member of a union: what is sent must have the same form as what is read."""
        tag, inner = _untagged(member)
        problems: list[list[str]] = []
        for other in _members(read):
            other_tag, other_inner = _untagged(other)
            if tag == other_tag:
                before = set(self._seen)
                problems.append(list(self.value(where, inner, other_inner)))
                if not problems[-1]:
                    return
                self._seen = before
        if tag is not None and problems:
            yield from problems[0]
        else:
            yield self._changed(where, sent, read)

    def _defaults(self, where: str, sent: Mapping[str, Any], read: Mapping[str, Any]) -> Iterator[str]:
        """Return the problems with the defaults of one field: a default that is used must not change."""
        mine, other = ({key: value for key, value in field.items() if key != "type"} for field in (sent, read))
        if mine and not other and (self.strict or "optional" in mine):
            yield f"{where} may be left out here, and must not be there"
        elif mine and other and mine != other:
            here, there = (mine, other) if self.strict else (other, mine)
            yield f"{where} has the default {_shown(here)} here, and {_shown(there)} there"

    def _changed(self, where: str, sent: Any, read: Any) -> str:
        here, there = (sent, read) if self.strict else (read, sent)
        return f"{where} is {words(here)} here, and {words(there)} there"


def _shown(default: Mapping[str, Any]) -> str:
    return json.dumps(next(iter(default.values())), ensure_ascii=False)


def _kind(schema: Any) -> str:
    return schema if isinstance(schema, str) else next(iter(schema))


def _members(schema: Any) -> list[Any]:
    """Return the members of a union; those of a literal are its values."""
    found: list[Any] = []
    for member in schema["union"] if _kind(schema) == "union" else [schema]:
        values = member["literal"] if _kind(member) == "literal" else ()
        found += [{"literal": [value]} for value in values] or [member]
    return found


def _untagged(member: Any) -> tuple[str | None, Any]:
    if isinstance(member, Mapping) and TAG in member:
        return member[TAG], member["of"]
    return None, member


def _parts(schema: Any) -> list[Any]:
    """Return the types within a container."""
    kind = _kind(schema)
    if kind in {"list", "set", "frozenset"} or (kind == "tuple" and not isinstance(schema["tuple"], list)):
        return [schema[kind]]
    return list(schema[kind]) if kind in {"tuple", "dict"} else []


def _fits(sent: Any, read: Any) -> bool:  # noqa: PLR0911
    """Return whether both are of the same kind, whatever they contain."""
    kind, other = _kind(sent), _kind(read)
    if kind == "literal":
        values = [(type(value).__name__, value) for value in sent["literal"]]
        if other == "literal":
            return all(value in [(type(member).__name__, member) for member in read["literal"]] for value in values)
        return all({"NoneType": "None"}.get(name, name) == read for name, _ in values)
    if kind != other:
        return False
    if kind == "enum":
        if "flags" in sent or "flags" in read:
            return bool(sent.get("flags") == read.get("flags"))
        return all(value in read["values"] for value in sent["values"])
    if kind == "tuple":
        mine, theirs = sent["tuple"], read["tuple"]
        return isinstance(mine, list) == isinstance(theirs, list) and len(_parts(sent)) == len(_parts(read))
    return kind in {"list", "set", "frozenset", "dict"}
