"""The environment as typed values, and every way in which it can be wrong."""

from __future__ import annotations

import linecache
import re
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from attrs import validators

from kernel.config.service_config import read_config, variable, variables
from kernel.config.settings import KERNEL_VARIABLES, Address, Settings, near_misses, parse_address, read_settings
from kernel.config.values import Seconds, Secret
from kernel.errors import ConfigError


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


# -- configs of services ---------------------------------------------------------------------------------------------


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
    assert declared[1] == "tests/config/test_settings.py"


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
    assert "tests/config/test_settings.py:" in str(error)


def test_all_bad_values_are_reported_in_one_go() -> None:
    """Nobody has to mend them one run at a time."""
    config, errors = read_config("db", Config, {"DB_POOL_SIZE": "x", "DB_WAIT": "y", "DB_PORT": "z", "DB_MODE": "fast"})
    assert config is None
    assert [error.where for error in errors] == ["DB_POOL_SIZE", "DB_WAIT", "DB_PORT"]


def test_a_service_link() -> None:
    """A tcp://... where a port is expected is named for what it is."""
    assert "enableServiceLinks: false" in str(one_error(Config, {"DB_PORT": "tcp://10.0.0.1:80"}))


def test_a_field_of_an_unreadable_type() -> None:
    """A type that no text can become is a fault of the field, not of the value."""
    error = one_error(Config, {"DB_EXTRA": "a=b"})
    assert "cannot be read into a field of type dict" in str(error)
    assert "use a plain type" in str(error)


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
    assert set(error.where.split(", ")) == {"DB_LOW", "DB_HIGH"}


def test_defaults_that_do_not_fit() -> None:
    """A class that refuses its own defaults says so, without a variable to blame."""

    @attrs.frozen
    class Broken:
        x: int = attrs.field(default=0, validator=validators.ge(1))

    error = one_error(Broken, {})
    assert error.where == "Broken"


SECRET = "hunter2-hunter2"  # noqa: S105  (nobody's)  # pragma: allowlist secret


@pytest.mark.parametrize(
    ("cls", "environ"),
    [
        pytest.param(Config, {"DB_TOKEN": SECRET}, id="refused by a validator that tells it"),
        pytest.param(Config, {"DB_TOKEN": SECRET, "DB_PORT": "0"}, id="two refused"),
        pytest.param(Strict, {"DB_KEY": SECRET}, id="another is missing"),
        pytest.param(Whole, {"DB_LOW": "99", "DB_PASSWORD": SECRET}, id="told by the whole"),
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


# -- the kernel's own ------------------------------------------------------------------------------------------------


def test_settings_have_defaults() -> None:
    """Nothing needs to be set."""
    assert read_settings({}) == (Settings(), [])
    assert Settings() == Settings(None, 10.0, 0.0, "INFO", False, False, False, "asyncio")


def test_settings_are_read() -> None:
    """Each variable has its type, in any case."""
    environ = {
        "SERVICES_ENABLED": "a, !b, c*",
        "RUNNER_SHUTDOWNTIMEOUT": "1m",
        "RUNNER_DRAINDELAY": "500ms",
        "LOG_LEVEL": "Debug",
        "LOG_FORMAT": "JSON",
        "LOG_ADD_SOURCE": "on",
        "ENV": "dev",
        "KERNEL_BACKEND": "trio",
        "ADMIN_ADDR": "[::1]:80",
    }
    assert set(environ) == set(KERNEL_VARIABLES)
    settings, errors = read_settings(environ)
    assert not errors
    admin = Address("::1", 80)
    assert settings == Settings(("a", "!b", "c*"), 60.0, 0.5, "DEBUG", True, True, True, "trio", admin)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9090", Address("127.0.0.1", 9090)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),  # noqa: S104  (nobody listens)
        ("localhost:0", Address("localhost", 0)),
        ("9090", Address("127.0.0.1", 9090)),
        (":9090", Address("127.0.0.1", 9090)),
        ("[::]:9090", Address("::", 9090)),
        ("off", None),
        ("NONE", None),
    ],
)
def test_an_address(text: str, address: Address | None) -> None:
    """Without a host it is loopback: whoever wants to be heard by everybody has to say so."""
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["host", "host:", "host:http", "1:2:3", "::1:80", "host:70000", "http://host:80", "²"])
def test_no_address(text: str) -> None:
    """A host without a port, an IPv6 address without brackets, or a URL."""
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_address(text)


def test_the_admin_server_is_on_in_dev() -> None:
    """On a laptop somebody looks; elsewhere it listens where it is told to."""
    assert read_settings({"ENV": "dev"})[0].admin == Address("127.0.0.1", 9090, asked_for=False)
    assert read_settings({"ENV": "dev", "ADMIN_ADDR": "off"})[0].admin is None
    assert read_settings({"ENV": "dev", "ADMIN_ADDR": "9090"})[0].admin == Address("127.0.0.1", 9090)
    assert read_settings({})[0].admin is None


def test_empty_settings_are_unset_ones() -> None:
    """An empty variable, or a list of nothing, takes the default."""
    assert read_settings(dict.fromkeys(KERNEL_VARIABLES, "")) == (Settings(), [])
    assert read_settings({"SERVICES_ENABLED": " , "}) == (Settings(), [])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("RUNNER_SHUTDOWNTIMEOUT", "soon", "a duration such as 10s"),
        ("RUNNER_DRAINDELAY", "-1s", "a duration such as 10s"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error, critical"),
        ("LOG_FORMAT", "xml", "text or json"),
        ("LOG_ADD_SOURCE", "maybe", "true/false"),
        ("ENV", "test", "dev or prod"),
        ("KERNEL_BACKEND", "curio", "asyncio or trio"),
        ("ADMIN_ADDR", "everywhere", "an address such as 127.0.0.1:9090"),
    ],
)
def test_a_bad_setting(name: str, text: str, words: str) -> None:
    """It is shown with its variable and what was expected, and its default is in its place."""
    settings, errors = read_settings({name: text})
    assert settings == Settings()
    (error,) = errors
    assert str(error).startswith(f"{name} is '{text}'; expected {words}")


def test_all_bad_settings_are_reported_in_one_go() -> None:
    """Every one of them."""
    _, errors = read_settings(dict.fromkeys(set(KERNEL_VARIABLES) - {"SERVICES_ENABLED"}, "?"))
    assert {error.where for error in errors} == set(KERNEL_VARIABLES) - {"SERVICES_ENABLED"}


def test_a_drain_delay_that_leaves_no_time() -> None:
    """The delay counts towards the deadline, so it must be shorter."""
    _, errors = read_settings({"RUNNER_DRAINDELAY": "10s"})
    assert "leaves nothing of RUNNER_SHUTDOWNTIMEOUT" in str(errors[0])
    assert read_settings({"RUNNER_DRAINDELAY": "9s"})[1] == []
    assert read_settings({"RUNNER_SHUTDOWNTIMEOUT": "0"})[1] == []


# -- variables that nobody reads -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DB_POOLSIZE", "DB_POOL_SIZE"),
        ("DB_POOL_SIZ", "DB_POOL_SIZE"),
        ("RUNNER_SHUTDOWN_TIMEOUT", "RUNNER_SHUTDOWNTIMEOUT"),
        ("LOG_LEVELS", "LOG_LEVEL"),
        ("SERVICE_ENABLED", "SERVICES_ENABLED"),
        ("ADMIN_ADDRESS", "ADMIN_ADDR"),
        ("OTEL_EXPORTER_OTLP_ENDPOIN", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_SERVICENAME", "OTEL_SERVICE_NAME"),
    ],
)
def test_a_near_miss(name: str, meant: str) -> None:
    """A variable that nearly has the name of one that is read is warned about."""
    known = [*variables("db", Config)]
    assert list(near_misses({name: "x"}, known)) == [f"{name} is set, but nothing reads it; did you mean {meant}?"]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "DB_POOL_SIZE",
            "LOG_LEVEL",
            "PATH",
            "HOME",
            "DB_SERVICE_HOST",
            "DB_PORT_5432_TCP",
            "DB_SERVICE_PORT",
            "EDITOR",
        ),
        *("OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_PYTHON_LOG_CORRELATION"),
    ],
)
def test_no_near_miss(name: str) -> None:
    """What is read, what is far from all of it, and Kubernetes' service links are not."""
    assert list(near_misses({name: "x"}, variables("db", Config))) == []
