"""NATS_URL and its kin."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel import masking
from kernel.config.nats import NATS_VARIABLES, read_nats, shown_url
from kernel.config.settings import read_settings
from kernel.config.values import Secret
from tests.certificates import certificates, openssl


def test_nothing_set() -> None:
    """No server, and nothing is wrong; neither is one of the others alone."""
    assert read_nats({}) == (None, [])
    assert read_nats({"NATS_URL": " ", "NATS_USER": "me"}) == (None, [])


SEED = "SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU"  # pragma: allowlist secret
CREDS = f"""-----BEGIN NATS USER JWT-----
eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
{SEED}
------END USER NKEY SEED------
"""


def test_all_of_them(tmp_path: Path) -> None:
    """Each is read, and nothing that is secret is shown."""
    made = certificates(tmp_path)
    creds, seed = tmp_path / "creds", tmp_path / "seed"
    creds.write_text(CREDS)
    seed.write_text(SEED + "\n")
    environ = {
        "NATS_CREDS": str(creds),
        "NATS_NKEY": str(seed),
        "NATS_CA": str(made.ca),
        "NATS_CERT": str(made.client),
        "NATS_KEY": str(made.client_key),
        "NATS_URL": "tls://me:hidden@a.example:4222, nats://[::1]:4223, b.example",
        "NATS_USER": "user",
        "NATS_PASSWORD": "hidden",
        "NATS_PREFIX": "shop.eu-1",
    }
    assert environ.keys() == {*NATS_VARIABLES}
    found, errors = read_nats(environ)
    assert not errors
    assert found is not None
    assert [url.reveal() for url in found.urls] == [
        "tls://me:hidden@a.example:4222",
        "nats://[::1]:4223",
        "b.example",
    ]
    assert found.shown == "tls://********@a.example:4222, nats://[::1]:4223, b.example"
    assert (found.user.reveal(), found.password.reveal(), found.prefix) == ("user", "hidden", "shop.eu-1")
    assert "hidden" not in repr(found)
    assert read_settings(environ)[0].nats == found


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("NATS_URL", "http://me:hidden@x:1", "is 'http://********@x:1'; expected nats://host:4222"),
        ("NATS_URL", "nats://a b", "expected nats://host:4222"),
        ("NATS_CREDS", "/nowhere", "is '/nowhere'; expected the path of a file that holds a user's JWT and seed"),
        ("NATS_CREDS", __file__, "expected the path of a file that holds a user's JWT and seed"),
        ("NATS_CA", "/nowhere", "is '/nowhere'; expected the path"),
        ("NATS_CA", __file__, "cannot be loaded"),
        ("NATS_NKEY", "hidden", "is not valid; expected the path of a file that holds a seed"),
        ("NATS_NKEY", __file__, "is not valid; expected the path of a file that holds a seed"),
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
    """One without the other is of no use; nor is one that belongs to another key, or that has a passphrase."""
    made = certificates(tmp_path)
    url = {"NATS_URL": "nats://localhost"}
    _, errors = read_nats({**url, "NATS_CERT": str(made.client)})
    assert [str(error) for error in errors] == ["NATS_KEY is not set; set both NATS_CERT and NATS_KEY, or neither"]
    _, errors = read_nats({**url, "NATS_KEY": str(made.client_key)})
    assert [str(error) for error in errors] == ["NATS_CERT is not set; set both NATS_CERT and NATS_KEY, or neither"]
    locked = tmp_path / "locked.key"
    openssl("rsa", "-aes256", "-in", made.client_key, "-out", locked, "-passout", "pass:hidden")
    for key in (made.server_key, locked, Path(__file__)):
        _, errors = read_nats({**url, "NATS_CA": str(made.ca), "NATS_CERT": str(made.client), "NATS_KEY": str(key)})
        assert [error.where for error in errors] == ["NATS_CERT and NATS_KEY"], key
        assert "expected PEM: a certificate and its key, without a passphrase" in str(errors[0])


def test_the_file_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    """Where all three are set, and any of them, or two, hold something else."""
    made = certificates(tmp_path)
    good = {"NATS_CA": made.ca, "NATS_CERT": made.client, "NATS_KEY": made.client_key}
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for bad, where in (
        (["NATS_CA"], "NATS_CA"),
        (["NATS_CERT"], "NATS_CERT and NATS_KEY"),
        (["NATS_KEY"], "NATS_CERT and NATS_KEY"),
        (["NATS_CA", "NATS_KEY"], "NATS_CA"),
    ):
        for file in (Path(__file__), empty):
            files = good | dict.fromkeys(bad, file)
            _, errors = read_nats({"NATS_URL": "nats://localhost"} | {name: str(path) for name, path in files.items()})
            assert [error.where for error in errors] == [where], (bad, file)
            expected = "certificates in PEM" if where == "NATS_CA" else "PEM: a certificate and its key"
            assert "cannot be loaded: " in str(errors[0])
            assert f"; expected {expected}" in str(errors[0])


@pytest.mark.parametrize("name", ["NATS_CREDS", "NATS_NKEY"])
def test_keys_need_their_package(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is missing, the error says so before anything is started."""
    file = tmp_path / "file"
    file.write_text(CREDS if name == "NATS_CREDS" else SEED)
    monkeypatch.setattr("kernel.config.nats.find_spec", lambda _: None)
    _, errors = read_nats({"NATS_URL": "nats://localhost", name: str(file)})
    assert [error.where for error in errors] == [name]
    assert "needs the package nkeys, which is not installed; run `just deps-add nkeys`" in str(errors[0])


@pytest.mark.parametrize(
    "environ",
    [
        {"NATS_URL": "nats://hidden-one@host:4222"},
        {"NATS_URL": "a.example, hidden-one@host"},
        {"NATS_URL": "tls://me:hidden-one@host"},  # pragma: allowlist secret
        {"NATS_PASSWORD": "hidden-one", "NATS_USER": "me"},  # pragma: allowlist secret
        {"NATS_USER": "hidden-one"},
        {"NATS_NKEY": "hidden-one"},
    ],
    ids=str,
)
def test_secrets_are_known_to_be_masked(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A password, a token, and a seed: wherever they are shown later."""
    for name in ("_secrets", "_longest_first"):
        monkeypatch.setattr(masking, name, type(getattr(masking, name))())
    masking.learn(environ)
    assert masking.mask("the server says: hidden-one is wrong") == f"the server says: {masking.MASK} is wrong"


def test_a_url_without_a_secret_is_shown_as_it_is() -> None:
    """What is masked is what stands before the @."""
    assert shown_url("nats://localhost:4222") == "nats://localhost:4222"
    assert shown_url("token@localhost") == "********@localhost"
    assert str(Secret("x")) != "x"
