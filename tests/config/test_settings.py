"""The kernel's own settings, and the table that they are read from."""

from __future__ import annotations

import re

import attrs
import pytest

from kernel.config.nats import NATS_SETTINGS
from kernel.config.setting import Setting
from kernel.config.settings import KERNEL_VARIABLES, SETTINGS, Address, Settings, parse_address, read_settings
from kernel.masking import MASK


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
        "LOG_TRACEBACK": "full",
        "LOG_ADD_SOURCE": "on",
        "ENV": "dev",
        "KERNEL_BACKEND": "trio",
        "ADMIN_ADDR": "[::1]:80",
    }
    assert set(environ) == set(KERNEL_VARIABLES)
    settings, errors = read_settings(environ)
    assert not errors
    admin = Address("::1", 80)
    assert settings == Settings(
        ("a", "!b", "c*"), 60.0, 0.5, "DEBUG", True, True, True, "trio", admin, log_folded=False
    )


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9090", Address("127.0.0.1", 9090)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),  # noqa: S104  (nobody listens)
        ("localhost:0", Address("localhost", 0)),
        ("localhost:65535", Address("localhost", 65535)),
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


@pytest.mark.parametrize(
    "text", ["host", "host:", "host:http", "1:2:3", "::1:80", "host:65536", "http://host:80", "²", "host/x:80"]
)
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
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error, critical, or a list such as info,worker=debug"),
        ("LOG_FORMAT", "xml", "text or json"),
        ("LOG_ADD_SOURCE", "maybe", "true/false"),
        ("ENV", "test", "dev or prod"),
        ("KERNEL_BACKEND", "curio", "one of asyncio, uvloop, trio"),
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


@pytest.mark.parametrize(
    ("backend", "installed", "wrong"),
    [("uvloop", False, True), ("uvloop", True, False), ("asyncio", False, False), ("", False, False)],
)
def test_a_loop_that_is_not_installed(
    backend: str, installed: bool, wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told how to get it; nobody else needs it."""
    monkeypatch.setattr("kernel.config.settings.find_spec", lambda name: name if installed else None)
    settings, errors = read_settings({"KERNEL_BACKEND": backend})
    assert settings.backend == (backend or "asyncio")
    assert [str(error) for error in errors] == [
        "KERNEL_BACKEND is uvloop, which is not installed; run `just deps-add uvloop`, or unset the variable"
    ] * wrong


def test_what_others_define_is_read_too() -> None:
    """OpenTelemetry's settings and those of NATS, and what is wrong with them."""
    settings, errors = read_settings({"OTEL_TRACES_EXPORTER": "console", "NATS_URL": "nats://localhost"})
    assert not errors
    assert settings.otel
    assert settings.otel.traces.console
    assert settings.nats
    settings, errors = read_settings({"OTEL_TRACES_EXPORTER": "x", "NATS_URL": "a b", "OTEL_LOGS_EXPORTER": "none"})
    assert (settings.otel, settings.nats) == (None, None)
    assert [error.where for error in errors] == ["OTEL_TRACES_EXPORTER", "NATS_URL"]


def test_a_drain_delay_that_leaves_no_time() -> None:
    """The delay counts towards the deadline, so it must be shorter."""
    _, errors = read_settings({"RUNNER_DRAINDELAY": "10s"})
    assert "leaves no time within RUNNER_SHUTDOWNTIMEOUT" in str(errors[0])
    assert read_settings({"RUNNER_DRAINDELAY": "9s"})[1] == []
    assert read_settings({"RUNNER_SHUTDOWNTIMEOUT": "0"})[1] == []


@pytest.mark.parametrize("setting", [*SETTINGS, *NATS_SETTINGS], ids=lambda setting: setting.name)
def test_only_what_is_secret_is_masked(setting: Setting) -> None:
    """A setting is shown as it is, unless it is secret: then it is masked; of an address, the login is."""
    secret = {"NATS_USER", "NATS_PASSWORD", "NATS_NKEY"}
    for text in ("x", "long-enough", "tls://me:hidden@host:1"):
        plain = text.replace("me:hidden", MASK) if setting.name == "NATS_URL" else text
        assert setting.shown(text) == (MASK if setting.name in secret else plain)


def test_the_table_is_whole() -> None:
    """Each row has a field of its own, each field a row, and a default that reads as the field's."""
    assert {one.field for one in SETTINGS} == {one.name for one in attrs.fields(Settings)} - {"otel", "nats"}
    assert len({one.name for one in SETTINGS}) == len(SETTINGS)
    for one in SETTINGS:
        if one.name not in {"SERVICES_ENABLED", "ADMIN_ADDR"}:  # whose defaults no text stands for
            assert read_settings({one.name: one.default}) == (Settings(), []), one.name
