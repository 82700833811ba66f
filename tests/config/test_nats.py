"""NATS_URL and its kin."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.config.nats import NATS_VARIABLES, read_nats, shown_url
from kernel.config.settings import read_settings
from kernel.config.values import Secret


def test_nothing_set() -> None:
    """No server, and nothing is wrong; neither is one of the others alone."""
    assert read_nats({}) == (None, [])
    assert read_nats({"NATS_URL": " ", "NATS_USER": "me"}) == (None, [])


def test_all_of_them(tmp_path: Path) -> None:
    """Each is read, and nothing that is secret is shown."""
    file = tmp_path / "file"
    file.write_text("x")
    environ = dict.fromkeys(NATS_VARIABLES, str(file)) | {
        "NATS_URL": "tls://me:hidden@a.example:4222, nats://[::1]:4223, b.example",
        "NATS_USER": "user",
        "NATS_PASSWORD": "hidden",
        "NATS_PREFIX": "shop.eu-1",
    }
    found, errors = read_nats(environ)
    assert not errors
    assert found is not None
    assert [url.reveal() for url in found.urls] == [
        "tls://me:hidden@a.example:4222",
        "nats://[::1]:4223",
        "b.example",
    ]
    assert found.shown == "tls://********@a.example:4222, nats://[::1]:4223, b.example"
    assert (found.user, found.password.reveal(), found.prefix) == ("user", "hidden", "shop.eu-1")
    assert "hidden" not in repr(found)
    assert read_settings(environ)[0].nats == found


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("NATS_URL", "http://me:hidden@x:1", "is 'http://********@x:1'; expected nats://host:4222"),
        ("NATS_URL", "nats://a b", "expected nats://host:4222"),
        ("NATS_CREDS", "/nowhere", "is '/nowhere'; expected the path of an existing file"),
        ("NATS_CA", "/nowhere", "expected the path"),
        ("NATS_NKEY", "hidden", "is ********; expected the path of a file that holds a seed"),
        ("NATS_PREFIX", "a..b", "expected words"),
        ("NATS_PREFIX", "a.*", "expected words"),
        ("NATS_PREFIX", "a b", "expected words"),
    ],
)
def test_what_is_wrong_is_named(name: str, text: str, words: str) -> None:
    """The variable, what it says (without secrets), and what was expected."""
    found, errors = read_nats({"NATS_URL": "nats://localhost", name: text})
    assert found is None
    assert [error.where for error in errors] == [name]
    assert words in str(errors[0])
    assert "hidden" not in str(errors[0])


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    """One without the other is of no use."""
    file = tmp_path / "cert"
    file.write_text("x")
    _, errors = read_nats({"NATS_URL": "nats://localhost", "NATS_CERT": str(file)})
    assert [error.where for error in errors] == ["NATS_KEY"]


def test_a_url_without_a_secret_is_shown_as_it_is() -> None:
    """What is masked is what stands before the @."""
    assert shown_url("nats://localhost:4222") == "nats://localhost:4222"
    assert shown_url("token@localhost") == "********@localhost"
    assert str(Secret("x")) != "x"
