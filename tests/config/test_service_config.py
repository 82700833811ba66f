"""The config of a service, and every way in which the environment can be wrong about it."""

from __future__ import annotations

import collections
import linecache
import re
import sys
import textwrap
from datetime import date, datetime
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Generic, Literal, NewType, TypeVar
from uuid import UUID

import attrs
import pytest
from attrs import validators
from hypothesis import example, given
from hypothesis import strategies as st

from kernel import masking
from kernel.config.service_config import read_config, variables
from kernel.config.values import Seconds, Secret, variable
from kernel.errors import ConfigError
from tests.modules import new_module


def _short(_: object, __: object, value: Secret[str]) -> None:
    if len(value.reveal()) > 9:
        raise ValueError(f"too long: {value.reveal()}")


@attrs.frozen
class Config:
    """A config with a bit of everything."""

    path: Path = Path("app.db")
    pool_size: int = 5
    wait: Seconds = 1.0
    mode: Literal["fast", "safe"] = "safe"
    hosts: tuple[str, ...] = ()
    token: Secret[str] = attrs.field(default=Secret("none"), validator=_short)
    port: int = attrs.field(default=80, validator=[validators.ge(1), validators.lt(65536)])
    _hidden: bool = False
    extra: dict[str, str] = attrs.field(factory=dict)
    made: int = attrs.field(init=False, default=0)


@attrs.frozen
class Strict:
    """A config without defaults."""

    url: str
    key: Secret[str]


@attrs.frozen
class Whole:
    """A config whose fields must fit together."""

    low: int = 0
    high: int = 10
    password: Secret[str] = attrs.field(default=Secret(""))

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}, says {self.password.reveal()}")


def one_error(cls: type, environ: dict[str, str], service: str = "db") -> ConfigError:
    """The one error that reading gives."""
    config, errors = read_config(service, cls, environ)
    assert config is None
    (error,) = errors
    return error


@pytest.mark.parametrize(
    ("service", "field", "name"),
    [("example-database", "path", "EXAMPLE_DATABASE_PATH"), ("db", "pool_size", "DB_POOL_SIZE")],
)
def test_the_name_of_a_variable(service: str, field: str, name: str) -> None:
    """It is the service's name, then the field's."""
    assert variable(service, field) == name


def test_the_variables_of_a_config() -> None:
    """A private field is read by its argument's name, and one that is not an argument not at all."""
    assert variables("my-db", Config) == {
        "MY_DB_PATH": "path",
        "MY_DB_POOL_SIZE": "pool_size",
        "MY_DB_WAIT": "wait",
        "MY_DB_MODE": "mode",
        "MY_DB_HOSTS": "hosts",
        "MY_DB_TOKEN": "token",
        "MY_DB_PORT": "port",
        "MY_DB_HIDDEN": "hidden",
        "MY_DB_EXTRA": "extra",
    }


def test_everything_has_a_default() -> None:
    """Without variables a config has its defaults."""
    assert read_config("db", Config, {}) == (Config(), [])


def test_everything_is_read() -> None:
    """Each variable becomes a value of its field's type."""
    environ = {
        "DB_PATH": "/tmp/x",  # noqa: S108
        "DB_POOL_SIZE": "7",
        "DB_WAIT": "1m",
        "DB_MODE": "fast",
        "DB_HOSTS": "a, b",
        "DB_TOKEN": "abc",
        "DB_PORT": "8080",
        "DB_HIDDEN": "yes",
        "OTHER_PORT": "1",
    }
    config, errors = read_config("db", Config, environ)
    assert not errors
    assert config == Config(Path("/tmp/x"), 7, 60.0, "fast", ("a", "b"), Secret("abc"), 8080, True)  # noqa: S108


def test_an_empty_variable_is_an_unset_one() -> None:
    """It takes the default, and where there is none it is missing."""
    assert read_config("db", Config, {"DB_POOL_SIZE": ""}) == (Config(), [])
    _, errors = read_config("db", Strict, {"DB_URL": "", "DB_KEY": "k"})
    assert [error.where for error in errors] == ["DB_URL"]


def test_a_missing_variable() -> None:
    """It is named with what was expected, and where the field is declared."""
    error = one_error(Strict, {"DB_KEY": "k"})
    assert str(error).startswith("DB_URL is not set, and has no default; expected a text (Strict.url, ")
    declared = re.search(r"Strict\.url, (.+):(\d+)\)", str(error))
    assert declared
    assert "url: str" in linecache.getline(declared[1], int(declared[2]))
    assert declared[1] == "tests/config/test_service_config.py"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("DB_POOL_SIZE", "many", "a whole number"),
        ("DB_WAIT", "soon", "a duration such as 10s"),
        ("DB_MODE", "slow", "one of fast, safe"),
        ("DB_HIDDEN", "perhaps", "true/false"),
    ],
)
def test_a_bad_value(name: str, text: str, words: str) -> None:
    """It is shown with its variable, what was expected, and where that is declared."""
    error = one_error(Config, {name: text})
    assert error.where == name
    assert str(error).startswith(f"{name} is '{text}'; expected {words}")
    assert "tests/config/test_service_config.py:" in str(error)


def test_all_bad_values_are_reported_in_one_go() -> None:
    """Nobody has to mend them one run at a time."""
    config, errors = read_config("db", Config, {"DB_POOL_SIZE": "x", "DB_WAIT": "y", "DB_PORT": "z", "DB_MODE": "fast"})
    assert config is None
    assert [error.where for error in errors] == ["DB_POOL_SIZE", "DB_WAIT", "DB_PORT"]


def test_a_service_link() -> None:
    """A tcp://... where a port is expected is named for what it is."""
    assert "enableServiceLinks: false" in str(one_error(Config, {"DB_PORT": "tcp://10.0.0.1:80"}))


@pytest.mark.parametrize("environ", [{}, {"DB_TAGS": "a"}], ids=["unset", "set"])
def test_a_field_of_an_unreadable_type(environ: dict[str, str]) -> None:
    """A type that no text can become is a fault of the field, not of the value; it is told set or unset."""

    @attrs.frozen
    class Tagged:
        tags: collections.deque[str] = attrs.field(factory=collections.deque)

    error = one_error(Tagged, environ)
    assert str(error).startswith(
        "DB_TAGS cannot be read: its field is of type deque[str]; write list[str] (Tagged.tags, "
    )


@pytest.mark.parametrize("port", ["0", "65536"])
def test_a_value_that_a_validator_refuses(port: str) -> None:
    """It names the one variable that is to blame, its value, and why."""
    error = one_error(Config, {"DB_PORT": port, "DB_POOL_SIZE": "3"})
    assert error.where == "DB_PORT"
    assert f"is '{port}'" in str(error)
    assert "port" in error.what
    assert "declared at Config.port" in error.hint


def test_values_that_do_not_fit_together() -> None:
    """Where it takes several to be wrong, each that alone would mend it is not blamed alone."""
    error = one_error(Whole, {"DB_LOW": "7", "DB_HIGH": "3"})
    assert error.where == "DB_LOW, DB_HIGH"
    assert error.what == "is '7' and '3': low 7 is above high 3, says "
    error = one_error(Whole, {"DB_LOW": "99", "DB_HIGH": "20"})
    assert (error.where, error.what) == ("DB_LOW", "is '99': low 99 is above high 20, says ")
    assert error.hint.startswith("declared at Whole.low, tests/config/test_service_config.py:")


def _says_nothing(_: object, __: object, value: int) -> None:
    if value > 1:
        raise ValueError


@attrs.frozen
class Wordy:
    """Fields whose validators say more than a text, or nothing."""

    more: int = attrs.field(default=True, validator=validators.instance_of(bool))
    none: int = attrs.field(default=0, validator=_says_nothing)


def test_what_a_validator_says() -> None:
    """Of an error with several arguments the first is shown, and of one without any the type."""
    error = one_error(Wordy, {"DB_MORE": "1"})
    assert error.what == "is '1': 'more' must be <class 'bool'> (got 1 that is a <class 'int'>)."
    assert one_error(Wordy, {"DB_NONE": "2"}).what == "is '2': ValueError"


def test_a_default_that_is_refused() -> None:
    """A class whose validator refuses its own default names the variable that would help."""

    @attrs.frozen
    class Broken:
        x: int = attrs.field(default=0, validator=validators.ge(1))

    error = one_error(Broken, {})
    assert str(error).startswith(
        "DB_X is not set, and the default is refused: 'x' must be >= 1: 0; declared at Broken.x"
    )


def test_defaults_that_do_not_fit_together() -> None:
    """A class that refuses its defaults as a whole says so, without a variable to blame."""

    @attrs.frozen
    class Broken:
        x: int = 0

        def __attrs_post_init__(self) -> None:
            raise ValueError("never")

    error = one_error(Broken, {})
    assert (error.where, error.what) == ("Broken", "was refused: never")
    assert error.hint.startswith("declared at Broken, tests/config/test_service_config.py:")


def test_types_that_are_no_texts() -> None:
    """Of a class that is made, or in a module whose annotations are evaluated at once."""
    cls = attrs.make_class("Made", {"n": attrs.field(type=int), "wait": attrs.field(type=Seconds, default=1.0)})
    assert read_config("db", cls, {"DB_N": "7", "DB_WAIT": "2m"}) == (cls(7, 120.0), [])


def test_a_field_without_a_type() -> None:
    """Nobody can know what it is."""

    @attrs.frozen
    class Untyped:
        x = attrs.field(default=1)  # type: ignore[var-annotated]

    assert str(one_error(Untyped, {})).startswith("DB_X cannot be read: its field has no type; annotate the field")


def _strip(text: str) -> str:
    return text.strip()


def _two_by(number: int) -> int:
    return 2 // number


@attrs.frozen
class Checked:
    """Fields with validators and converters, and one that looks at another."""

    batch: int = attrs.field(default=1, validator=validators.ge(1))
    every: Seconds = attrs.field(default=1.0, validator=validators.le(60))
    name: str = attrs.field(default="x", converter=_strip, validator=validators.min_len(1))
    low: int = 0
    high: int = attrs.field(default=9)
    code: int = attrs.field(default=1, converter=_two_by)

    @high.validator
    def _above(self, _: attrs.Attribute[int], value: int) -> None:
        if value < self.low:
            raise ValueError(f"high is {value}, which is below low")


@pytest.mark.parametrize(
    ("environ", "wrong"),
    [
        ({"DB_BATCH": "0", "DB_EVERY": "often"}, ["DB_EVERY", "DB_BATCH"]),
        ({"DB_BATCH": "0", "DB_EVERY": "2m"}, ["DB_BATCH", "DB_EVERY"]),
        ({"DB_BATCH": "0", "DB_NAME": "  ", "DB_HIGH": "x"}, ["DB_HIGH", "DB_BATCH", "DB_NAME"]),
        ({"DB_LOW": "5", "DB_HIGH": "3", "DB_BATCH": "0"}, ["DB_BATCH", "DB_HIGH"]),
        ({"DB_LOW": "x", "DB_HIGH": "-1"}, ["DB_LOW"]),
        ({"DB_LOW": "x", "DB_HIGH": "3"}, ["DB_LOW"]),  # who asks for a value that there is not is not heard
        ({"DB_CODE": "0", "DB_BATCH": "0"}, ["DB_CODE", "DB_BATCH"]),
    ],
    ids=str,
)
def test_all_that_is_wrong_is_told(environ: dict[str, str], wrong: list[str]) -> None:
    """What cannot be read, what a converter refuses, and what validators refuse: each with its own reason."""
    config, errors = read_config("db", Checked, environ)
    assert config is None
    assert [error.where for error in errors] == wrong
    for error in errors:
        assert f"is {environ[error.where]!r}" in error.what


# -- classes inside --------------------------------------------------------------------------------------------------


@attrs.frozen
class Pool:
    """What may be inside of another."""

    size: int = attrs.field(default=5, validator=validators.ge(1))
    wait: Seconds = 1.0


@attrs.frozen
class Database:
    """One level down, with one more below."""

    host: str = "localhost"
    password: Secret[str] = attrs.field(default=Secret("none"))
    pool: Pool = attrs.field(factory=Pool)


@attrs.frozen
class Outer:
    """A config of classes."""

    db: Database = Database(host="db.internal")
    replica: Database | None = None
    cache: Pool = Pool(size=9)
    must: Database = attrs.field(kw_only=True)


@attrs.frozen
class Needy:
    """One that needs a value."""

    url: str


def test_the_variables_of_classes_inside() -> None:
    """Each has the names of all the fields on the way."""
    names = list(variables("aa", Outer))
    assert names[:4] == ["AA_DB_HOST", "AA_DB_PASSWORD", "AA_DB_POOL_SIZE", "AA_DB_POOL_WAIT"]
    assert len(names) == 4 + 4 + 2 + 4


def test_a_class_inside_is_read() -> None:
    """What is set replaces that alone: the rest is as in the default of the outer class, or else in the inner one."""
    config, errors = read_config("aa", Outer, {})
    assert (config, errors) == (Outer(must=Database()), [])
    config, errors = read_config("aa", Outer, {"AA_DB_POOL_SIZE": "7", "AA_CACHE_WAIT": "2s", "AA_MUST_HOST": "m"})
    assert not errors
    assert config == Outer(Database("db.internal", pool=Pool(7)), None, Pool(9, 2.0), must=Database("m"))
    config, _ = read_config("aa", Outer, {"AA_REPLICA_HOST": "r"})
    assert config.replica == Database("r")


def test_a_class_inside_that_may_be_none() -> None:
    """It is None where none of its variables is set, and needs what it needs where one is."""

    @attrs.frozen
    class Maybe:
        one: Needy | None = None
        two: Needy | None = attrs.field(kw_only=True)

    assert read_config("aa", Maybe, {}) == (Maybe(two=None), [])
    assert read_config("aa", Maybe, {"AA_TWO_URL": "x"}) == (Maybe(two=Needy("x")), [])


def test_all_that_is_wrong_with_classes_inside_is_told() -> None:
    """At every level, in one go."""

    @attrs.frozen
    class Deep:
        outer: Outer
        needy: Needy
        n: int = 0

    environ = {"AA_N": "x", "AA_OUTER_DB_POOL_SIZE": "0", "AA_OUTER_DB_POOL_WAIT": "soon", "AA_OUTER_CACHE_SIZE": "-1"}
    config, errors = read_config("aa", Deep, environ)
    assert config is None
    assert sorted(error.where for error in errors) == sorted([*environ, "AA_NEEDY_URL"])
    assert all("tests/config/test_service_config.py:" in str(error) for error in errors)


def _is_there(_: object, __: object, value: object) -> None:
    if value is None:
        raise ValueError("nobody said that it may be None")


@attrs.frozen
class Tagged:
    """One with a field of a type that no text can become."""

    tags: collections.deque[str] = attrs.field(factory=collections.deque)
    n: int = 0


@attrs.frozen
class HoldsTagged:
    """The same, one level down."""

    tagged: Tagged = attrs.field(factory=Tagged, validator=_is_there)


@pytest.mark.parametrize("environ", [{}, {"DB_TAGGED_N": "1"}], ids=["unset", "set"])
def test_a_field_of_an_unreadable_type_inside(environ: dict[str, str]) -> None:
    """Nothing else is told that follows from it."""
    assert one_error(HoldsTagged, environ).where == "DB_TAGGED_TAGS"


@attrs.frozen
class Endless:
    """It holds itself."""

    again: Endless | None = None


def test_a_class_that_holds_itself() -> None:
    """Its variables would have no end."""
    assert "it contains itself" in str(one_error(Endless, {}))


def test_two_fields_of_one_variable() -> None:
    """They are told apart by nothing, so it is an error."""

    @attrs.frozen
    class Twice:
        pool_size: int = 0
        pool: Pool = attrs.field(factory=Pool)

    assert str(one_error(Twice, {})) == "DB_POOL_SIZE is read for Twice.pool_size and Pool.size; rename one of them"


# -- generic classes -------------------------------------------------------------------------------------------------

T = TypeVar("T")
U = TypeVar("U", bound=int)


@attrs.frozen
class Box(Generic[T]):
    """A class whose field is of a type that others choose."""

    item: T
    items: list[T] = attrs.field(factory=list)


@attrs.frozen
class Boxes(Box[int], Generic[T]):
    """One that chooses for its base; its own T is another."""

    more: dict[str, T] = attrs.field(factory=dict)
    inside: Box[T] | None = None


@attrs.frozen
class Bound(Generic[U]):
    """One that says what it takes where nobody chooses."""

    item: U


def test_a_generic_class() -> None:
    """Its fields have the types that were chosen."""
    assert read_config("a", Box[int], {"A_ITEM": "7", "A_ITEMS": "1,2"}) == (Box(7, [1, 2]), [])
    assert read_config("a", Box[str], {"A_ITEM": "7"}) == (Box("7"), [])
    environ = {"A_ITEM": "7", "A_MORE": "x=0.5", "A_INSIDE_ITEM": "1.5"}
    assert read_config("a", Boxes[float], environ) == (Boxes(7, [], {"x": 0.5}, Box(1.5)), [])
    assert read_config("a", Bound, {"A_ITEM": "7"}) == (Bound(7), [])


NEW_SYNTAX = """
{future}
import attrs
from kernel import Secret

type Many[T] = list[T]

@attrs.frozen
class Cfg[T]:
    item: T
    own: Many[T] = attrs.field(factory=list)

@attrs.frozen
class Sub[U](Cfg[int]):
    more: dict[str, U] = attrs.field(factory=dict)
    inner: Cfg[U] | None = None
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="this syntax came with Python 3.12")
@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
def test_a_generic_class_in_the_new_syntax(future: str) -> None:
    """It is the same, whether or not its annotations are texts."""
    module = new_module("new_syntax")
    sys.modules["new_syntax"] = module
    exec(compile(NEW_SYNTAX.format(future=future), "new_syntax.py", "exec", dont_inherit=True), vars(module))  # noqa: S102
    try:
        config, errors = read_config("a", module.Sub[float], {"A_ITEM": "7", "A_MORE": "x=1.5", "A_INNER_OWN": "2"})
        assert [error.where for error in errors] == ["A_INNER_ITEM"]
        environ = {"A_ITEM": "7", "A_OWN": "8", "A_MORE": "x=1.5", "A_INNER_ITEM": "2.5"}
        config, errors = read_config("a", module.Sub[float], environ)
        assert (config, errors) == (module.Sub(7, [8], {"x": 1.5}, module.Cfg(2.5)), [])
    finally:
        del sys.modules["new_syntax"]


def test_a_generic_class_without_its_types() -> None:
    """It says how to choose."""
    _, errors = read_config("a", Box, {})
    assert [error.where for error in errors] == ["A_ITEM", "A_ITEMS"]
    assert "give the class a type argument, such as Config[int]" in str(errors[0])


# -- annotations -----------------------------------------------------------------------------------------------------


def test_types_that_cannot_be_evaluated() -> None:
    """Those fields are named, and what is wrong with the others is told all the same."""
    space: dict[str, Any] = {"__name__": "nowhere", "attrs": attrs}
    source = """
        from __future__ import annotations
        @attrs.frozen
        class Hidden:
            where: Path
            when: list[datetime] | None = None
            n: int = 0
        """
    exec(textwrap.dedent(source), space)  # noqa: S102
    _, errors = read_config("a", space["Hidden"], {"A_N": "x"})
    assert {error.where for error in errors} == {"A_WHERE", "A_WHEN", "A_N"}
    hidden = (
        "cannot be read: the type of its field cannot be evaluated: name 'Path' is not defined; import it at run time"
    )
    assert hidden in str(errors[0])


# -- secrets ---------------------------------------------------------------------------------------------------------

Token = NewType("Token", Secret[str])


def _tells(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    raise ValueError(f"{attribute.name} is {value.reveal() if isinstance(value, Secret) else value}")


@attrs.frozen
class Telling:
    """Validators that tell what they should not."""

    token: Token = attrs.field(default=Token(Secret("")), validator=_tells)


@attrs.frozen
class TellingInside:
    """The same, one level down, and one that tells of another's."""

    inner: Telling | None = None
    plain: str = attrs.field(default="", converter=_strip)

    @plain.validator
    def _tell(self, _: attrs.Attribute[str], value: str) -> None:
        if self.inner and value:
            raise ValueError(f"not with {self.inner.token.reveal()}")


SECRET = "hunter2-hunter2"  # noqa: S105  (nobody's)  # pragma: allowlist secret


@pytest.mark.parametrize(
    ("cls", "environ"),
    [
        pytest.param(Config, {"DB_TOKEN": SECRET}, id="refused by a validator that tells it"),
        pytest.param(Config, {"DB_TOKEN": SECRET, "DB_PORT": "0"}, id="two refused"),
        pytest.param(Strict, {"DB_KEY": SECRET}, id="another is missing"),
        pytest.param(Whole, {"DB_LOW": "99", "DB_PASSWORD": SECRET}, id="told by the whole"),
        pytest.param(Telling, {"DB_TOKEN": SECRET}, id="by another name"),
        pytest.param(TellingInside, {"DB_INNER_TOKEN": SECRET}, id="inside"),
        pytest.param(TellingInside, {"DB_INNER_TOKEN": SECRET, "DB_PLAIN": "x"}, id="inside, told by another"),
        pytest.param(Whole, {"DB_LOW": "7", "DB_HIGH": "3", "DB_PASSWORD": SECRET}, id="told by the whole of several"),
    ],
)
def test_a_secret_is_never_shown(cls: type, environ: dict[str, str]) -> None:
    """Whatever is wrong, no error shows a secret; it does name the variable."""
    _, errors = read_config("db", cls, environ)
    assert errors
    for error in errors:
        assert SECRET not in str(error)
        assert SECRET not in repr(error)
        assert error.where.startswith("DB_")


@pytest.mark.parametrize("tp", [Secret[int], Secret[int] | None, list[Secret[int]]], ids=str)
def test_a_secret_that_cannot_be_read_is_masked(tp: Any) -> None:
    """A bad value of a secret field is masked, also inside of a union or a list."""
    cls = attrs.make_class("Cls", {"pin": attrs.field(type=tp)})
    error = one_error(cls, {"DB_PIN": SECRET})
    assert str(error).startswith("DB_PIN is ********; expected ")
    assert SECRET not in repr(error)


@pytest.fixture
def _none_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret is known from another test."""
    monkeypatch.setattr(masking, "_secrets", {})
    monkeypatch.setattr(masking, "_longest_first", [])


Pairs = NewType("Pairs", dict[str, Secret[str]])
PARTS = ("s3krit", "hunter2", "0b1c2d3e4f")  # the first is shorter than a default that is masked


@pytest.mark.usefixtures("_none_known")
@pytest.mark.parametrize(
    ("tp", "text"),
    [
        (list[Secret[str]], "s3krit, hunter2,0b1c2d3e4f"),
        (tuple[Secret[str], ...] | None, "s3krit,hunter2 ,0b1c2d3e4f"),
        (tuple[Secret[str], str, Secret[str]], "s3krit,hunter2,0b1c2d3e4f"),
        (frozenset[Secret[str]], "0b1c2d3e4f,hunter2,s3krit"),
        (Secret[list[str]], "s3krit,hunter2,0b1c2d3e4f"),
        (dict[str, Secret[str]], "a=s3krit, b = hunter2,c=0b1c2d3e4f"),
        (Pairs | None, "a=s3krit,b=hunter2,c=0b1c2d3e4f"),
        (Secret[dict[str, str]], "a= s3krit,b=hunter2,c=0b1c2d3e4f"),
        (list[Secret[int]], "s3krit,hunter2,0b1c2d3e4f"),  # which is refused
        (dict[str, Secret[int]], "a=s3krit,b=hunter2,c=0b1c2d3e4f"),
    ],
    ids=str,
)
def test_each_part_of_a_collection_of_secrets_is_masked(tp: Any, text: str) -> None:
    """Wherever it is shown alone, however short, and also where the whole is refused."""
    read_config("db", attrs.make_class("Keys", {"keys": attrs.field(type=tp)}), {"DB_KEYS": text})
    for part in PARTS:
        assert masking.mask(f"refused {part}!") == f"refused {masking.MASK}!"
    assert masking.mask("a, b, c") == "a, b, c"


@attrs.frozen
class Keys:
    """Secrets that are in the code."""

    plain: Secret[str] = attrs.field(default=Secret("code-one"))
    several: Secret[tuple[str, ...]] = attrs.field(default=Secret(("code-two", "code-three")))
    each: tuple[Secret[str], ...] = (Secret("code-four"), Secret("none"))
    pairs: dict[str, Secret[bytes]] = attrs.field(factory=lambda: {"username": Secret(b"code-five")})
    word: Secret[str] = attrs.field(default=Secret("none"))
    last: Secret[str] = attrs.field(default=Secret(""))
    port: int = 1


@attrs.frozen
class KeysInside:
    """The same, one level down."""

    inner: Keys
    other: Keys = Keys(plain=Secret("code-six!"))
    port: int = 1


@pytest.mark.usefixtures("_none_known")
@pytest.mark.parametrize("port", ["7", "x"])
def test_secrets_in_the_code_are_masked(port: str) -> None:
    """One by one, of a class inside too, and where the config is refused; short words such as "none" are none."""
    default = KeysInside(Keys(plain=Secret("code-seven")))
    _, errors = read_config("db", KeysInside, {"DB_PORT": port}, default)
    assert bool(errors) is (port == "x")
    for word in ("one", "two", "three", "four", "five", "six!", "seven"):
        assert masking.mask(f"is code-{word}, username none") == f"is {masking.MASK}, username none"


def _derived(name: str) -> Any:
    return Secret(f"derived-of-{name}")


@pytest.mark.usefixtures("_none_known")
def test_a_secret_that_the_class_makes_is_masked() -> None:
    """By a converter, from what is not secret; and in a field that nothing is read into."""

    @attrs.frozen
    class Makes:
        user: str = attrs.field(converter=_derived)
        both: Secret[str] = attrs.field(init=False, default=Secret("derived-once"))

    _, errors = read_config("db", Makes, {"DB_USER": "me"})
    assert not errors
    assert masking.mask("derived-of-me, derived-once, me") == f"{masking.MASK}, {masking.MASK}, me"


@pytest.mark.usefixtures("_none_known")
def test_an_error_masks_short_secrets_in_the_code() -> None:
    """What is too short to be masked everywhere is masked in the errors of its config."""

    @attrs.frozen
    class Tells:
        keys: Keys = Keys(each=(Secret("x-1-y"),))
        port: int = attrs.field(default=1)

        @port.validator
        def _tell(self, _: attrs.Attribute[int], port: int) -> None:
            if port != 1:
                raise ValueError(f"{port} not with {[key.reveal() for key in self.keys.each]}")

    assert "2 not with ['********']" in str(one_error(Tells, {"DB_PORT": "2"}))


# -- whatever is in the environment ------------------------------------------------------------------------------------


@attrs.frozen
class Everything:
    """A field of each kind."""

    whole: int = 0
    number: float = 0.0
    yes: bool = False
    fee: Decimal = Decimal(0)
    day: date | None = None
    at: datetime | None = None
    every: Seconds = 0.0
    ident: UUID | None = None
    host: IPv4Address | IPv6Address | None = None
    data: bytes = b""
    mode: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = ()
    rates: dict[str, float] = attrs.field(factory=dict)
    pin: Secret[int] = attrs.field(default=Secret(0))
    inner: Pool = attrs.field(factory=Pool)


VARIABLES = variables("db", Everything)
GARBAGE = st.text(st.characters(exclude_characters="\0"), min_size=1) | st.sampled_from(
    ["\udcff", "%s", "{}", "-", "tcp://1.2.3.4:5", "1e999", "9" * 5000, "\x1b[31m", "'", "\\", "nan", "٣", "=", ",,"]
)


@given(st.dictionaries(st.sampled_from([*VARIABLES]), GARBAGE))
@example({"DB_INNER_SIZE": "0", "DB_PIN": "1"})  # the secret is masked in what the validator says, too
def test_garbage(environ: dict[str, str]) -> None:
    """Each variable either is read or has one clear error: which, what it is, what was expected, and where."""
    config, errors = read_config("db", Everything, environ)
    assert (config is None) == bool(errors)
    told = [error.where for error in errors]
    assert len(set(told)) == len(told)
    assert {*told} <= {*environ}
    for error in errors:
        assert re.fullmatch(
            r"is (\*{8}|(?s:'.*'|\".*\")(\.\.\. \(\d+ characters\))?)(: 'size' must be >= (1|\*{8}): [-0-9*]+)?",
            error.what,
        )
        assert "\n" not in str(error)
        assert len(str(error)) < 1500
        assert re.search(
            r"^(expected .+ \(|declared at )(Everything|Pool)\.\w+, tests/config/test_service_config.py:\d+", error.hint
        )
        if error.where == "DB_PIN":
            assert error.what == "is ********"
