"""What a signature asks for."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import attrs

import kernel
from kernel.declare import serving
from kernel.declare.service import service, started
from kernel.declare.serving import Serving
from kernel.declare.signature import Edge, Needs, read_signature, takes_parameters
from tests.declare.parts import NOTHING_FITS, Config, Other, needs, refused

if TYPE_CHECKING:
    from somewhere import Pool  # type: ignore[import-not-found]


# -- the signature -----------------------------------------------------------------------------------------------------


def test_a_service_that_takes_nothing() -> None:
    """It is fine."""

    async def hello_world() -> None: ...

    assert needs()(hello_world) == Needs()
    assert needs()(hello_world).parameters == frozenset()


def test_all_that_a_signature_may_ask_for() -> None:
    """Values by name, `Serving`, a config, and defaults."""

    async def api(
        example_database: Pool, config: Config, serving: Serving[None], cache: str = "", *, other: int = 7, **rest: Any
    ) -> None: ...

    got = needs("example-database", "cache", "just-order")(api)
    assert got == Needs(
        edges=(
            Edge("example-database", parameter="example_database"),
            Edge("cache", parameter="cache", optional=True),
            Edge("just-order"),
        ),
        serving="serving",
        config=("config", Config),
        serves=type(None),
    )
    assert got.parameters == {"example_database", "cache", "serving", "config"}


def test_the_annotation_of_a_value_is_not_evaluated() -> None:
    """It is for people and type checkers."""

    async def api(db: Pool) -> None: ...

    assert needs("db")(api).edges == (Edge("db", parameter="db"),)


def test_serving_in_all_its_spellings() -> None:
    """With and without brackets, qualified, quoted, or evaluated already."""

    async def bare(s: Serving) -> None: ...  # type: ignore[type-arg]

    async def qualified(s: serving.Serving[int]) -> None: ...

    async def public(s: kernel.Serving[int]) -> None: ...

    async def quoted(s: "Serving[int]") -> None: ...  # noqa: UP037

    async def evaluated(s: object) -> None: ...

    evaluated.__annotations__["s"] = Serving[int]
    for fn in (bare, qualified, public, quoted, evaluated):
        assert needs()(fn).serving == "s"


def test_a_local_class_as_config() -> None:
    """A class of the enclosing function is found where the service uses it."""

    @attrs.frozen
    class Local:
        x: int = 0

    async def api(config: Local) -> None:
        Local()

    assert needs()(api).config == ("config", Local)


def test_a_name_of_the_enclosing_function_without_a_value_yet() -> None:
    """It hides nothing else."""

    async def api(serving: Serving[None]) -> None:
        print(later)

    assert needs()(api).serving == "serving"
    later = 1
    assert later


def test_named_after_a_dependency_comes_first() -> None:
    """The first that fits fills a parameter, whatever it is annotated with."""

    async def api(config: Config) -> None: ...

    assert needs("config")(api) == Needs(edges=(Edge("config", parameter="config"),))


def test_what_python_fills_itself() -> None:
    """Variadic parameters ask for nothing."""

    async def api(*args: int, **kwargs: int) -> None: ...

    assert needs()(api) == Needs()


def test_a_default_that_cannot_be_evaluated() -> None:
    """A parameter with a default keeps it, whatever its annotation."""

    async def api(pool: Pool = None) -> None: ...

    assert needs()(api) == Needs()


def test_a_parameter_that_nothing_can_fill() -> None:
    """The error names it and says what could."""

    async def api(thing: int) -> None: ...

    error = refused(api)
    assert error.what == "api has a parameter 'thing' that nothing can fill"
    assert error.hint == NOTHING_FITS


def test_a_parameter_that_is_nearly_a_dependency() -> None:
    """The nearest name is suggested."""

    async def api(databse: int) -> None: ...

    assert refused(api, "database").hint == "did you mean 'database'?"


def test_a_parameter_without_annotation() -> None:
    """It is filled by its name or not at all."""

    async def api(thing) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    assert refused(api).hint == NOTHING_FITS


def test_a_positional_only_parameter() -> None:
    """Values are given by name."""

    async def api(db: int, /) -> None: ...

    error = refused(api, "db")
    assert error.what == "api has a parameter 'db' that nothing can fill"
    assert error.hint == "values are passed by name: remove the `/`"


def test_an_annotation_that_cannot_be_evaluated() -> None:
    """The kernel needs it at run time, and says so."""

    async def api(pool: Pool) -> None: ...

    error = refused(api)
    assert "the annotation of parameter 'pool' cannot be evaluated: name 'Pool' is not defined" in error.what
    assert error.hint == "import the type at run time, not under TYPE_CHECKING"
    assert isinstance(error.__cause__, NameError)


def test_serving_twice() -> None:
    """One is enough."""

    async def api(a: Serving[None], b: Serving[None]) -> None: ...

    assert refused(api).what == "api takes `Serving` twice: a, b"


def test_two_configs() -> None:
    """One class has all fields."""

    async def api(a: Config, b: Other) -> None: ...

    error = refused(api)
    assert error.what == "api takes two configs: a, b"
    assert error.hint == "put the fields into one attrs class"


def test_a_value_through_started() -> None:
    """What was launched only has no value yet."""

    async def api(db: int) -> None: ...

    error = refused(api, started("db"))
    assert error.what == "api takes the value of 'db', but waits only for its start"
    assert error.hint == 'write depends=["db"]'


def test_a_oneshot_that_serves() -> None:
    """It is ready when it has returned, so it cannot say so itself."""

    async def migrate(serving: Serving[None]) -> None: ...

    error = refused(migrate, oneshot=True)
    assert error.what == "migrate is a one-shot and takes `Serving`"
    assert "remove one of the two" in error.hint


def test_the_default_of_a_config() -> None:
    """It is kept: an instance, None, or none; None also where the annotation allows it and nothing else is said."""

    async def must(config: Config) -> None: ...

    async def may(config: Config | None) -> None: ...

    async def nothing(config: Config | None = None) -> None: ...

    async def something(config: Config = Config(3)) -> None: ...  # noqa: B008

    defaults = {must: inspect.Parameter.empty, may: None, nothing: None, something: Config(3)}
    for fn, default in defaults.items():
        found = needs()(fn)
        assert found.config == ("config", Config)
        assert found.config_default == default


def test_whether_there_are_parameters() -> None:
    """Of any callable; one without code may have some."""

    def decorated(fn: Any) -> Any:
        return functools.wraps(fn)(lambda *_: None)

    assert not takes_parameters(lambda: None)
    assert not takes_parameters(decorated(lambda: None))
    for fn in (lambda x: x, lambda *, x: x, decorated(lambda x: x), functools.partial(print), print):
        assert takes_parameters(fn)


def test_a_signature_is_read_once() -> None:
    """And only when it is asked for."""

    @service(depends=["db"])
    async def api(db: int) -> None: ...

    assert api.needs is api.needs


# -- commands ----------------------------------------------------------------------------------------------------------


def test_a_command_leaves_parameters_to_the_command_line() -> None:
    """Only values, and a config that has no default, are the kernel's."""

    def up(db: int, config: Config, name: str, option: Other = Other(), *, steps: int = 1) -> None: ...  # noqa: B008

    got = read_signature(up, [Edge("db"), Edge("other")], "up", spare=True)
    assert got == Needs(edges=(Edge("db", parameter="db"), Edge("other")), config=("config", Config))


def test_a_command_with_an_unknown_type() -> None:
    """What cannot be evaluated is the command line's business too."""

    def up(pool: Pool) -> None: ...

    assert read_signature(up, [], "up", spare=True) == Needs()
