"""What may be shown: texts without secrets, and of a bounded length.

Secrets are made known once, where they are read: the values of `Secret` fields, and the passwords and keys in the
addresses and headers of OpenTelemetry. From then on every text that the kernel shows goes through `mask`: records of
the log, errors, tracebacks, status, spans. It finds a secret as it is, and as `repr`, JSON, a URL or base64 has it.
Whether it is known or not, the password in an address is masked too, and so is a query's value that is called a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

MASK = "********"
LEAST = 4  # characters of a secret that is looked for: one that is shorter would be found in every other word
LINES = 8  # and of a line of one with several lines
MOST = 1000  # secrets that are remembered; the oldest are forgotten

LINE = 1_000  # characters of an error in one line
TEXT = 64 * 1024  # of a message of the log
TRACE = 32 * 1024  # of a traceback
TRACE_LINE = 2_000  # of one of its lines


class _Secret:
    """One secret, in all its forms."""

    def __init__(self, text: str) -> None:
        self.length = len(text)
        runs = re.findall(r"[A-Za-z0-9]+", text)
        self._hint = max(runs, key=len, default="")  # which all forms but base64 have as it is
        self._pattern = re.compile("".join(map(_forms_of, re.findall(r"\\+|.", text, re.DOTALL))))
        self._encoded = tuple(dict.fromkeys(_in_base64(text.encode(errors="surrogateescape"))))

    def masked(self, text: str) -> str:
        """Mask it in *text*."""
        if self._hint in text:
            text = self._pattern.sub(MASK, text)
        for form in self._encoded:
            if form in text:
                text = text.replace(form, MASK)
        return text


_ESCAPE = r"\\{1,8}"  # a backslash, or more of them where what was quoted was quoted again


def _forms_of(part: str) -> str:
    """A pattern for one character, or for some backslashes, as they are or quoted in any of the usual ways."""
    if part.isascii() and part.isalnum():
        return part
    raw = part[0].encode(errors="surrogateescape")
    number = ord(part[0])
    if part[0] == "\\":
        count = len(part)
        return rf"(?i:\\{{{count},{count * 8}}}|(?:%5c|&\#92;|{_ESCAPE}x5c){{{count}}})"
    forms = [
        rf"\\{{0,8}}{re.escape(part)}",
        _ESCAPE + "".join(rf"x{one:02x}{_ESCAPE}" for one in raw).removesuffix(_ESCAPE),
        rf"{_ESCAPE}x{number:02x}",
        rf"{_ESCAPE}u{number:04x}",
        rf"{_ESCAPE}U{number:08x}",
        "".join(f"%{one:02x}" for one in raw),
        f"&#0*{number};",
        f"&#x0*{number:x};",
        *_NAMED.get(part, ()),
    ]
    if number > 0xFFFF:  # noqa: PLR2004  (two of them in JSON)
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
    """What base64 makes of *raw*, after any number of other bytes: without the characters that these have a part in."""
    import base64  # this module is loaded at every start, and this only where there are secrets

    for before, shared in ((0, 0), (1, 2), (2, 3)):
        whole = base64.b64encode(bytes(before) + raw).decode()[shared : (before + len(raw)) * 8 // 6]
        if len(whole) > LEAST:
            yield whole
            yield whole.translate({ord("+"): "-", ord("/"): "_"})


_secrets: dict[str, _Secret] = {}
_longest_first: list[_Secret] = []


def add(*texts: str) -> None:
    """Make secrets known: from now on they are masked. Those of less than `LEAST` characters are not."""
    for text in texts:
        lines = [line.strip() for line in text.splitlines()]
        for one in (text, text.strip(), *(line for line in lines if len(line) >= LINES)):
            if len(one) >= LEAST and one not in _secrets:
                _secrets[one] = _Secret(one)
                while len(_secrets) > MOST:
                    del _secrets[next(iter(_secrets))]
                # The longest first: another may be a part of it.
                _longest_first[:] = sorted(_secrets.values(), key=lambda secret: -secret.length)


def known() -> bool:
    """Whether any secret is known."""
    return bool(_secrets)


def mask(text: str) -> str:
    """*text* without any secret that is known, and without passwords and keys in addresses."""
    for secret in _longest_first:
        text = secret.masked(text)
    if "://" in text and "@" in text:
        text = re.sub(_AS_USER, rf"\1{MASK}@", re.sub(_AFTER_USER, rf"\1{MASK}@", text))
    if "=" in text and ("?" in text or "&" in text):
        text = re.sub(_IN_QUERY, rf"\1{MASK}", text)
    return text


# As texts, which `re` compiles when they are first used: this module is loaded at every start.
_AFTER_USER = r"(://[^\s/?#\"'<>@:]*:)[^\s/?#\"'<>]*@"
_AS_USER = r"(?i)(https?://)[^\s/?#\"'<>@:]+@"
_IN_QUERY = r"(?i)([?&][\w.-]*(?:key|token|secret|passw(?:or)?d|pwd|sig(?:nature)?|auth|credential)s?=)[^\s&\"'<>#]+"


def bounded(text: str, limit: int) -> str:
    """*text*; where it has more than *limit* characters, its begin and its end, and how many were left out."""
    if len(text) <= limit:
        return text
    end = limit // 4
    return f"{text[: limit - end]} [... {len(text) - limit:,} characters left out ...] {text[-end:]}"


def shown(text: str, limit: int = TEXT) -> str:
    """*text* without secrets, and then of at most about *limit* characters."""
    return bounded(mask(text), limit)


# -- what the environment holds ----------------------------------------------------------------------------------

_ADDRESSES = frozenset({"NATS_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
_SECRETS = frozenset({"NATS_AFTER_USER", "NATS_NKEY"})
_OTLP = "OTEL_EXPORTER_OTLP_"


def learn(environ: Mapping[str, str]) -> None:
    """Make the secrets known that OpenTelemetry's variables, and those of NATS and of proxies, hold."""
    for name, text in environ.items():
        if name.startswith(_OTLP) and name.endswith("HEADERS"):
            add(*_secrets_of_headers(text))
        elif name in _SECRETS:
            add(text)
        elif name.upper() in _ADDRESSES or (name.startswith(_OTLP) and name.endswith("ENDPOINT")):
            for one in text.split(","):
                add(*secrets_of_address(one))


def _secrets_of_headers(text: str) -> Iterable[str]:
    from urllib.parse import unquote

    yield text
    for part in text.split(","):
        _, equals, value = part.partition("=")
        for one in (part, value) if equals else (part,):
            yield from (one, unquote(one))
            yield from re.split(r"\s+|%20", one)[1:]  # what comes after "Bearer"


def secrets_of_address(address: str) -> Iterable[str]:
    """The password in a URL, or the user where that stands alone, and the values of its query."""
    from urllib.parse import unquote, unquote_plus

    scheme, _, rest = address.strip().partition("://")
    before, at, after = rest.rpartition("@")  # the last: the password may have one, and a slash too
    if at and "?" in before and "/" in before.partition("?")[0]:  # a query with an @ in it
        before, at, after = "", "", rest
    if at:
        user, colon, password = before.partition(":")
        secret = password if colon else user if scheme.startswith("http") else ""
        yield from (secret, unquote(secret))
    for part in after.partition("#")[0].partition("?")[2].split("&"):
        value = part.partition("=")[2]
        yield from (value, unquote_plus(value))
