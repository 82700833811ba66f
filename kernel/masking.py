"""Mask secrets in text, and limit its length.

Secrets are registered where they are read: the values of `Secret` fields, and the passwords and keys in the addresses
and headers of OpenTelemetry. All text that the kernel shows goes through `mask`: log records, errors, tracebacks,
status, spans. It finds a secret in plain form, and as encoded by `repr`, JSON, a URL or base64. It also masks passwords
in any address, and the values of query parameters with names such as `key` or `token`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

MASK = "********"
LEAST = 4  # minimum length of a secret: shorter ones would match parts of ordinary words
LINES = 8  # minimum length of a line of a multi-line secret
MOST = 1000  # maximum number of secrets; the oldest are dropped

LINE = 1_000  # maximum characters of an error in one line
TEXT = 64 * 1024  # maximum characters of a log message
TRACE = 32 * 1024  # maximum characters of a traceback
TRACE_LINE = 2_000  # maximum characters of one line of a traceback


class _Secret:
    """One secret, with patterns for all its encodings."""

    def __init__(self, text: str) -> None:
        self.length = len(text)
        runs = re.findall(r"[A-Za-z0-9]+", text)
        self._hint = max(runs, key=len, default="")  # the same in all encodings except base64
        self._pattern = re.compile("".join(map(_forms_of, re.findall(r"\\+|.", text, re.DOTALL))))
        self._encoded = tuple(dict.fromkeys(_in_base64(text.encode(errors="surrogateescape"))))

    def masked(self, text: str) -> str:
        """Return *text* with the secret masked."""
        if self._hint in text:
            text = self._pattern.sub(MASK, text)
        for form in self._encoded:
            if form in text:
                text = text.replace(form, MASK)
        return text


_ESCAPE = r"\\{1,8}"  # one backslash, or several if the text was escaped repeatedly


def _forms_of(part: str) -> str:
    """Return a pattern that matches a character, or a run of backslashes, in any of the usual encodings."""
    if part.isascii() and part.isalnum():
        return part
    raw = part[0].encode(errors="surrogateescape")
    number = ord(part[0])
    if part[0] == "\\":
        count = len(part)
        return rf"(?i:\\{{{count},{count * 8}}}|(?:%5c|&\#92;|{_ESCAPE}x5c){{{count}}})"
    forms = [
        rf"\\{{0,8}}{re.escape(part)}",
        _ESCAPE + "".join(rf"x{byte:02x}{_ESCAPE}" for byte in raw).removesuffix(_ESCAPE),
        rf"{_ESCAPE}x{number:02x}",
        rf"{_ESCAPE}u{number:04x}",
        rf"{_ESCAPE}U{number:08x}",
        "".join(f"%{byte:02x}" for byte in raw),
        f"&#0*{number};",
        f"&#x0*{number:x};",
        *_NAMED.get(part, ()),
    ]
    if number > 0xFFFF:  # noqa: PLR2004  (a surrogate pair in JSON)
        high, low = divmod(number - 0x10000, 0x400)
        forms.append(f"{_ESCAPE}u{0xD800 + high:04x}{_ESCAPE}u{0xDC00 + low:04x}")
    return f"(?i:{'|'.join(forms)})"


_NAMED = {
    " ": [r"\+"],
    "&": ["&amp;"],
    "<": ["&lt;"],
    ">": ["&gt;"],
    '"': ["&quot;"],
    "\n": [r"\r?\n[ |]*", f"{_ESCAPE}n"],
    "\r": [f"{_ESCAPE}r"],
    "\t": [f"{_ESCAPE}t"],
    "\b": [f"{_ESCAPE}b"],
    "\f": [f"{_ESCAPE}f"],
}


def _in_base64(raw: bytes) -> Iterable[str]:
    """Yield the base64 encodings of *raw* at each offset, without characters that depend on neighbouring bytes."""
    import base64  # only when there are secrets: this module is loaded at every start

    for before, shared in ((0, 0), (1, 2), (2, 3)):
        whole = base64.b64encode(bytes(before) + raw).decode()[shared : (before + len(raw)) * 8 // 6]
        if len(whole) > LEAST:
            yield whole
            yield whole.translate({ord("+"): "-", ord("/"): "_"})


_secrets: dict[str, _Secret] = {}
_longest_first: list[_Secret] = []


def add(*texts: str) -> None:
    """Register secrets, which are masked from now on. Texts shorter than `LEAST` characters are ignored."""
    for text in texts:
        lines = [line.strip() for line in text.splitlines()]
        for secret in (text, text.strip(), *(line for line in lines if len(line) >= LINES)):
            if len(secret) >= LEAST and secret not in _secrets:
                _secrets[secret] = _Secret(secret)
                while len(_secrets) > MOST:
                    del _secrets[next(iter(_secrets))]
                # Longest first, since a secret may be part of a longer one.
                _longest_first[:] = sorted(_secrets.values(), key=lambda each: -each.length)


def known() -> bool:
    """Return whether any secret is registered."""
    return bool(_secrets)


def mask(text: str) -> str:
    """Return *text* with registered secrets, and passwords and keys in addresses, masked."""
    for secret in _longest_first:
        text = secret.masked(text)
    if "://" in text and "@" in text:
        text = re.sub(_AS_USER, rf"\1{MASK}@", re.sub(_AFTER_USER, rf"\1{MASK}@", text))
    if "=" in text and ("?" in text or "&" in text):
        text = re.sub(_IN_QUERY, rf"\1{MASK}", text)
    return text


# Strings, which `re` compiles at first use: this module is loaded at every start.
_AFTER_USER = r"(://[^\s/?#\"'<>@:]*:)[^\s/?#\"'<>]*@"
_AS_USER = r"(?i)((?:https?|nats)://)[^\s/?#\"'<>@:]+@"
_IN_QUERY = r"(?i)([?&][\w.-]*(?:key|token|secret|passw(?:or)?d|pwd|sig(?:nature)?|auth|credential)s?=)[^\s&\"'<>#]+"


def bounded(text: str, limit: int) -> str:
    """Shorten *text* to about *limit* characters: keep its beginning and end, and say how many were left out."""
    if len(text) <= limit:
        return text
    end = limit // 4
    return f"{text[: limit - end]} [... {len(text) - limit:,} characters left out ...] {text[-end:]}"


def shown(text: str, limit: int = TEXT) -> str:
    """Return *text* with secrets masked, shortened to about *limit* characters."""
    return bounded(mask(text), limit)


# -- what the environment holds ----------------------------------------------------------------------------------

_ADDRESSES = frozenset({"NATS_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
_SECRETS = frozenset({"NATS_PASSWORD", "NATS_NKEY"})
_WITH_TOKEN = ("http", "nats", "tls", "ws")  # schemes of addresses in which a user without a password is a token
_OTLP = "OTEL_EXPORTER_OTLP_"


def learn(environ: Mapping[str, str]) -> None:
    """Register the secrets in the environment variables of OpenTelemetry, NATS and proxies."""
    for name, text in environ.items():
        if name.startswith(_OTLP) and name.endswith("HEADERS"):
            add(*_secrets_of_headers(text))
        elif name in _SECRETS or (name == "NATS_USER" and not environ.get("NATS_PASSWORD")):
            add(text)
        elif name.upper() in _ADDRESSES or (name.startswith(_OTLP) and name.endswith("ENDPOINT")):
            for address in text.split(","):
                add(*secrets_of_address(address))


def _secrets_of_headers(text: str) -> Iterable[str]:
    from urllib.parse import unquote

    yield text
    for part in text.split(","):
        _, equals, value = part.partition("=")
        for piece in (part, value) if equals else (part,):
            yield from (piece, unquote(piece))
            yield from re.split(r"\s+|%20", piece)[1:]  # the token after "Bearer"


def secrets_of_address(address: str) -> Iterable[str]:
    """Yield the password in a URL, or the user if there is no password, and the values of its query."""
    from urllib.parse import unquote, unquote_plus

    scheme, marks, rest = address.strip().partition("://")
    if not marks:
        scheme, rest = "nats", scheme  # the only addresses that may lack a scheme
    before, at, after = rest.rpartition("@")  # split at the last @, since a password may contain @ and /
    if at and "?" in before and "/" in before.partition("?")[0]:  # the @ is in the query
        before, at, after = "", "", rest
    user, colon, password = before.partition(":")
    secret = password if colon else user if scheme.startswith(_WITH_TOKEN) else ""
    yield from (secret, unquote(secret))
    for part in after.partition("#")[0].partition("?")[2].split("&"):
        value = part.partition("=")[2]
        yield from (value, unquote_plus(value))
