"""What may be shown: no secret in any of its forms, and not too much."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import urllib.parse
from collections.abc import Iterator

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from kernel import masking
from kernel.masking import LEAST, MASK, add, bounded, learn, mask, secrets_of_address


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret is known from elsewhere."""
    monkeypatch.setattr(masking, "_secrets", {})
    monkeypatch.setattr(masking, "_longest_first", [])


CHARACTERS = st.characters(exclude_categories=["Cs"])
SECRETS = st.text(CHARACTERS, min_size=LEAST, max_size=40) | st.text("ab'\"\\ @/+&\n%é€😀", min_size=LEAST, max_size=12)


def forms_of(secret: str) -> Iterator[str]:
    """A secret as others may show it."""
    yield secret
    yield from (repr(secret), repr(f"it's {secret}"), repr(f'"{secret}'), repr(secret.encode()), ascii(secret))
    yield from (json.dumps(secret), json.dumps(secret, ensure_ascii=False), json.dumps(repr(secret)))
    yield from (urllib.parse.quote(secret), urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret))
    yield from (
        re.sub("%..", lambda found: found[0].lower(), urllib.parse.quote(secret)),
        urllib.parse.urlencode({"q": secret}),
        html.escape(secret),
    )
    for before in ("", "u", "us", "user:") if len(secret.encode()) > LEAST + 1 else ("",):
        raw = f"{before}{secret}".encode()
        yield from (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode())
    yield from (repr(Exception(secret)), repr({"key": [secret]}))


@given(SECRETS)
@example("p@ss'w\"o\\rd")
@example("\\\\\\\\")
@example("a\nb\nc\nd")
@example("    ")
@example("  or")  # which is in our own words
def test_no_form_of_a_secret_is_shown(secret: str) -> None:
    """Whatever characters it has, and whoever quoted it."""
    assume(secret.strip() and secret not in MASK)
    masking._secrets.clear()
    add(secret)
    for form in forms_of(secret):
        masked = mask(f"before {form} after")
        assert masked.startswith("before ")
        assert masked.endswith(" after")
        assert secret.strip() not in masked[len("before ") : -len(" after")].replace(MASK, "")
        inner = form.strip("'\"b=")
        assert len(inner) <= LEAST or inner not in masked
        assert MASK in masked


def test_what_is_short_stays() -> None:
    """A secret of three letters would be found in every other word."""
    add("abc", "", "  ")
    assert mask("abc") == "abc"


def test_each_line_of_a_key_is_masked() -> None:
    """Where only the first line of an error is shown, or each is indented."""
    add("-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n")
    assert mask("no key: -----BEGIN KEY-----") == f"no key: {MASK}"
    assert "MIIE" not in mask("|   MIIEvQIBADANBg")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://app:hunter2@db/x", f"postgres://app:{MASK}@db/x"),
        ("redis://:p@ss@cache:6379/0", f"redis://:{MASK}@cache:6379/0"),
        ("to https://ghp_abc@github.com/x.git", f"to https://{MASK}@github.com/x.git"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("http://h:80/x?to=a@b.c", "http://h:80/x?to=a@b.c"),  # pragma: allowlist secret
        ("/v1/traces?api-key=abc&x=1", f"/v1/traces?api-key={MASK}&x=1"),
        ("?x=1&access_token=abc.def'", f"?x=1&access_token={MASK}'"),
        ("mail a@b.c, see http://x/y", "mail a@b.c, see http://x/y"),
        ("a?author=me&b=2", "a?author=me&b=2"),
    ],
)
def test_addresses(text: str, expected: str) -> None:
    """What is a password by its place is masked, known or not."""
    assert mask(text) == expected


@pytest.mark.parametrize(
    ("address", "secrets"),
    [
        ("http://u:p@ss/w@h:4318", {"p@ss/w"}),
        ("http://u:p%40ss@h", {"p%40ss", "p@ss"}),
        ("https://token@h?api-key=k%20ey#x", {"token", "k%20ey", "k ey"}),
        ("postgres://user@h", {""}),
        ("nats://token@h", {"token"}),
        ("http://h/x?mail=a@b", {"a@b"}),
        ("h:80", {""}),
    ],
)
def test_secrets_of_an_address(address: str, secrets: set[str]) -> None:
    """The user information ends at the last @."""
    assert {*secrets_of_address(address)} - {""} == secrets - {""}


def test_what_the_environment_holds() -> None:
    """Headers and addresses of OpenTelemetry, whole and in parts."""
    learn(
        {
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abcdef,x-key=hunter2",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "malformed secret words",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://u:p@ssword@h/v1?k=12345678",  # pragma: allowlist secret
            "HTTPS_PROXY": "http://me:letmein@proxy",
            "PATH": "/usr/bin",
        }
    )
    for text in ("Bearer abcdef", "abcdef", "hunter2", "malformed secret words", "p@ssword", "12345678", "letmein"):
        assert mask(f"<{text}>") == f"<{MASK}>"
    assert mask("/usr/bin authorization") == "/usr/bin authorization"


@given(st.text(max_size=3000), st.integers(10, 1000))
def test_what_is_too_long_says_how_much_is_left_out(text: str, limit: int) -> None:
    """It keeps the begin and the end."""
    short = bounded(text, limit)
    assert len(short) <= limit + 60
    if len(text) > limit:
        assert f"{len(text) - limit:,} characters left out" in short
        assert text.startswith(short.partition(" [... ")[0]) or "[... " in text
    else:
        assert short == text


def test_the_oldest_are_forgotten_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs every line of the log a little."""
    monkeypatch.setattr(masking, "MOST", 2)
    add("first secret", "second secret", "third secret")
    assert mask("first secret, third secret") == f"first secret, {MASK}"


# -- how short and how long --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("secret", "masked"), [("abc", False), ("abcd", True), (" abc ", True), ("é€😀", False)])
def test_the_shortest_secret(secret: str, *, masked: bool) -> None:
    """It has four characters, spaces and all."""
    add(secret)
    assert masking.known() is masked
    assert (mask(f"<{secret}>") == f"<{MASK}>") is masked


@pytest.mark.parametrize(("line", "masked"), [("1234567", False), ("12345678", True)])
def test_the_shortest_line(line: str, *, masked: bool) -> None:
    """Of a secret of several lines, those of eight characters are secrets themselves."""
    add(f"----- BEGIN -----\n  {line}\n----- END -----")
    assert mask(f"<{line}>") == (f"<{MASK}>" if masked else f"<{line}>")


@pytest.mark.parametrize(("before", "first", "last"), [("", 0, 12), ("u", 2, 13), ("us", 3, 14), ("use", 4, 16)])
@pytest.mark.parametrize("after", ["", "xyz"])
def test_all_of_a_secret_in_base64(before: str, first: int, last: int, after: str) -> None:
    """Whatever is around it: only the characters that depend on its neighbours are left."""
    add("letmeindb")
    text = base64.b64encode(f"{before}letmeindb{after}".encode()).decode()
    assert mask(text) == f"{text[:first]}{MASK}{text[last:]}"


def test_too_short_in_base64() -> None:
    """What has only four characters would match parts of ordinary words."""
    add("abcd")
    assert mask(base64.b64encode(b"abcd").decode()) == f"{MASK}A=="
    assert mask(base64.b64encode(b"xabcd").decode()) == "eGFiY2Q="


def test_bytes_that_are_no_text() -> None:
    """A variable may hold any bytes; those that are no UTF-8 are masked in all forms as well."""
    text = "letme\udce9in"
    add(text)
    for form in (text, repr(text), ascii(text), "letme%E9in", repr(os.fsencode(text))):
        masked = mask(f"<{form}>")
        assert MASK in masked
        assert "letme" not in masked


def test_the_longest_secret_comes_first() -> None:
    """A part of a secret may be a secret; no rest of the longer one is left, in whatever order they are known."""
    add("letmein")
    add("letmein-now", "in-n")
    assert mask("letmein-now, letmein, in-n") == f"{MASK}, {MASK}, {MASK}"


@pytest.mark.parametrize(
    ("environ", "secrets"),
    [
        ({"NATS_USER": "anntoken"}, {"anntoken"}),
        ({"NATS_USER": "anntoken", "NATS_PASSWORD": "letmein"}, {"letmein"}),  # pragma: allowlist secret
        ({"NATS_NKEY": "SUACSSL3"}, {"SUACSSL3"}),
        ({"NATS_URL": "ann:letmein@one,nats://token@two"}, {"letmein", "token"}),
        ({"https_proxy": "http://me:letmein@proxy"}, {"letmein"}),  # pragma: allowlist secret
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://token@h"}, {"token"}),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "key=letmein"}, {"key=letmein", "letmein"}),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "PASSWORD": "letmein", "HEADERS": "a=bcdef"}, set()),
        ({"OTHER_ENDPOINT": "http://me:letmein@h"}, set()),  # pragma: allowlist secret
    ],
    ids=range(9),
)
def test_which_variables_hold_secrets(environ: dict[str, str], secrets: set[str]) -> None:
    """Those of NATS, of proxies, and of OpenTelemetry's exporters; a user is a secret where there is no password."""
    learn(environ)
    assert {*masking._secrets} == secrets


def test_the_middle_of_a_long_text_is_left_out() -> None:
    """A quarter of the room is for its end; what is not too long stays."""
    assert bounded("x" * 100, 100) == "x" * 100
    assert (
        bounded("a" * 75 + "b" * 1001 + "c" * 25, 100) == f"{'a' * 75} [... 1,001 characters left out ...] {'c' * 25}"
    )
    assert masking.shown("x" * masking.TEXT) == "x" * 65536
    assert len(masking.shown("x" * (masking.TEXT + 1))) < 65536 + 60
