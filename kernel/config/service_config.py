"""Read the config of a service from the environment.

Wrong values are collected and reported together, each with its variable, its value (secrets masked), the expected
format, and the place where the field is declared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from kernel.config.schema import UNKNOWN, Branch, Leaf, Schema, default_of, place, schema_of
from kernel.config.values import parse_list, register, secrets_in
from kernel.errors import ConfigError, text_of
from kernel.masking import MASK, add, mask

TRIVIAL = 3  # longest default that does not count as secret, such as Secret(0); in characters
LONGEST = 200  # longest value that an error repeats, in characters


def variables(service: str, cls: Any) -> dict[str, str]:
    """Return the variables of a service's config, each with the name of its field."""
    return {leaf.variable: leaf.argument for leaf in schema_of(service, cls).leaves()}


def read_config(
    service: str, cls: Any, environ: Mapping[str, str], default: object = attrs.NOTHING
) -> tuple[Any, list[ConfigError]]:
    """Create an instance of the attrs class *cls* from the variables of *service*; return it, and an error per problem.

    An empty variable counts as unset. The instance is None if anything is wrong.

    Args:
        service: The service's name.
        cls: The class, which may have type arguments: ``Config[int]``.
        environ: The environment.
        default: An instance whose values replace those that are not set. If it is None, the result is None when none of
            the variables is set, even if one is required.

    """
    schema = schema_of(service, cls)
    reading = _Reading(environ, _secrets(schema, environ, default))
    config = reading.read(schema, default if isinstance(default, schema.cls) else None)
    register(config)
    errors = [*schema.errors, *reading.errors]
    if default is None and not schema.errors and not any(environ.get(leaf.variable) for leaf in schema.leaves()):
        errors = []
    return (None if errors else config), errors


def _tried(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, BaseException | None]:
    """Return what *call* returns, or the exception that it raises: users' converters may raise any."""
    try:
        return call(*args, **kwargs), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: ASYNC103, BLE001  (nothing awaits here: the value is bad)
        return None, error  # noqa: ASYNC104


@attrs.define(eq=False)
class _Reading:
    """Reads one config.

    Args:
        environ: The environment.
        secrets: Texts that no error may show.
        errors: The problems found so far.

    """

    environ: Mapping[str, str]
    secrets: set[str]
    errors: list[ConfigError] = attrs.field(factory=list)

    def read(self, schema: Schema, outer: object) -> Any:
        """Return an instance of the class of *schema*; None if there are errors in it.

        Args:
            schema: Its fields.
            outer: The outer class's default instance, used for fields that are not set; None if there is none.

        """
        before = len(self.errors)
        values: dict[str, Any] = {}
        for member in schema.members:
            value = self._leaf(member, outer) if isinstance(member, Leaf) else self._branch(member, outer)
            if value is not UNKNOWN:
                values[member.argument] = value
        if len(self.errors) == before and not schema.errors:
            instance, refusal = _tried(schema.cls, **values)
            if refusal is None:
                return instance
        else:
            refusal = None
        wrong = len(self.errors)
        self._look_at_each(schema, values, whole=refusal is not None)
        if refusal is not None and len(self.errors) == wrong:
            self._refused(schema, values, refusal)
        return None

    def _leaf(self, leaf: Leaf, outer: object) -> Any:
        """Return the value of a field; UNKNOWN if the class must provide it, or if it is wrong."""
        text = self.environ.get(leaf.variable, "")
        if text == "":
            if outer is not None:
                return getattr(outer, leaf.attribute.name)
            if leaf.attribute.default is attrs.NOTHING:
                self._add(leaf, "is not set, and has no default", f"expected {leaf.reader.words}")
            return UNKNOWN
        value, error = _tried(leaf.reader.read, text)
        if error is None:
            return value
        hint = f"expected {leaf.reader.words}"
        link = text.startswith("tcp://")
        advice = "; it looks like a Kubernetes service link: set enableServiceLinks: false on the pod" if link else ""
        self._add(leaf, f"is {self._shown(leaf)}", hint, advice)
        return UNKNOWN

    def _branch(self, branch: Branch, outer: object) -> Any:
        """Return the value of a field that is a nested class; UNKNOWN if the outer class must provide it."""
        default = default_of(branch.attribute)
        if outer is not None:
            default = getattr(outer, branch.attribute.name)
        if not any(self.environ.get(name) for name in branch.variables):
            if outer is not None:
                return default
            if default is not attrs.NOTHING:
                return UNKNOWN
            if branch.optional:
                return None
        before = len(self.errors)
        value = self.read(branch.schema, default if isinstance(default, branch.schema.cls) else None)
        return UNKNOWN if len(self.errors) > before or branch.schema.errors else value

    # -- what the class itself refuses -------------------------------------------------------------------------------

    def _look_at_each(self, schema: Schema, values: Mapping[str, Any], *, whole: bool) -> None:
        """Run the converter and the validator of each field separately, to find all problems.

        Args:
            schema: The fields.
            values: The values by argument, without wrong ones.
            whole: Whether all values are there.

        """
        known = dict(values)
        blank: Any = object.__new__(schema.cls)
        for member in schema.members:
            if member.argument in known:
                error = self._convert(member, known)
                if error is not None:
                    self._refuse(member, error)
                    del known[member.argument]
            elif whole or (isinstance(member, Leaf) and not self.environ.get(member.variable)):
                default = default_of(member.attribute)
                if default is not UNKNOWN and default is not attrs.NOTHING:
                    known[member.argument] = default
            if member.argument in known:
                object.__setattr__(blank, member.attribute.name, known[member.argument])
        for member in schema.members:
            validator = member.attribute.validator
            if validator is None or member.argument not in known:
                continue
            _, error = _tried(validator, blank, member.attribute, known[member.argument])
            if error is not None and (whole or not isinstance(error, AttributeError)):
                self._refuse(member, error)

    @staticmethod
    def _convert(member: Leaf | Branch, known: dict[str, Any]) -> BaseException | None:
        converter: Any = member.attribute.converter
        if converter is None or isinstance(converter, attrs.Converter):  # may need the instance
            return None
        known[member.argument], error = _tried(converter, known[member.argument])
        return error

    def _refuse(self, member: Leaf | Branch, error: BaseException) -> None:
        """Report that the converter or validator of a field refused its value."""
        why = self._reason(error, (member,))
        named = [name for name in member.variables if self.environ.get(name)]
        if isinstance(member, Leaf) and named:
            what = f"is {self._shown(member)}: {why}"
        else:
            what = f"is not set, and the default is refused: {why}" if not named else f"was refused: {why}"
        where = ", ".join(named or member.variables)
        hint = f"declared at {place(member.owner, member.attribute.name)}"
        self.errors.append(ConfigError(what, where=where, hint=hint))

    def _refused(self, schema: Schema, values: Mapping[str, Any], error: BaseException) -> None:
        """Report that the class as a whole was refused. Name the value without which the rest is accepted."""
        members = {member.argument: member for member in schema.members}

        def accepts(rest: Mapping[str, Any]) -> bool:
            return _tried(schema.cls, **rest)[1] is None

        set_ = [name for name in values if any(self.environ.get(variable) for variable in members[name].variables)]
        blamed = [name for name in set_ if accepts({other: values[other] for other in values if other != name})]
        if len(blamed) != 1:
            blamed = set_
        why = self._reason(error, [members[name] for name in blamed])
        names = [variable for name in blamed for variable in members[name].variables if self.environ.get(variable)]
        shown = " and ".join(self._shown(leaf) for leaf in schema.leaves() if leaf.variable in names)
        owner, field = (members[blamed[0]].owner, members[blamed[0]].attribute.name) if blamed else (schema.cls, "")
        what = f"is {shown}: {why}" if shown else f"was refused: {why}"
        where = ", ".join(names) or schema.cls.__name__
        self.errors.append(ConfigError(what, where=where, hint=f"declared at {place(owner, field)}"))

    # -- words -------------------------------------------------------------------------------------------------------

    def _add(self, leaf: Leaf, what: str, hint: str, advice: str = "") -> None:
        hint = f"{hint} ({place(leaf.owner, leaf.attribute.name)}){advice}"
        self.errors.append(ConfigError(what, where=leaf.variable, hint=hint))

    def _shown(self, leaf: Leaf) -> str:
        """Return the text of a variable as errors show it."""
        text = self.environ.get(leaf.variable, "")
        if leaf.reader.secret:
            return MASK
        return repr(text) if len(text) <= LONGEST else f"{text[:LONGEST]!r}... ({len(text)} characters)"

    def _reason(self, error: BaseException, blamed: Iterable[Leaf | Branch]) -> str:
        """Return the message of a user's error, or only its type if it concerns a secret."""
        leaves = (
            leaf for member in blamed for leaf in ([member] if isinstance(member, Leaf) else member.schema.leaves())
        )
        if any(leaf.reader.secret for leaf in leaves):
            return type(error).__name__
        words = text_of(error.args[0] if error.args else error) or type(error).__name__
        for secret in sorted(self.secrets, key=len, reverse=True):
            words = words.replace(secret, MASK)
        return mask(words)


def _secrets(schema: Schema, environ: Mapping[str, str], default: object) -> set[str]:
    """Return the secrets as texts, including the elements of collections of secrets, and register them for masking.

    Those of a config that is refused must be known too: an error may tell any of them.
    """
    register(default)
    found = {text for text in secrets_in(default) if len(text) > TRIVIAL}
    for member in schema.members:
        if isinstance(member, Branch):
            found |= _secrets(member.schema, environ, default_of(member.attribute))
        elif member.reader.secret:
            text = environ.get(member.variable, "")
            parts = [text, *parse_list(text)]
            if "=" in member.reader.mark:
                parts += [part.partition("=")[2].strip() for part in parts]
            add(*parts)
            value, _ = _tried(member.reader.read, text) if text else (default_of(member.attribute), None)
            register(value)
            found.update(parts, (secret for secret in secrets_in(value) if text or len(secret) > TRIVIAL))
    return found - {""}
