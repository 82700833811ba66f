"""What may be shown: no secret in any of its forms, and not too much."""

from __future__ import annotations

import base64
import html
import json
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
