"""The table of NATS_URL and the related settings, named as in the nats command line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

import attrs

from kernel.config.setting import Setting, read_each
from kernel.config.values import Secret, parse_list
from kernel.errors import ConfigError
from kernel.masking import MASK

if TYPE_CHECKING:
    import ssl

_URL = re.compile(r"((nats|tls|ws|wss)://)?([^/@\s]*@)?(\[[0-9A-Fa-f:.]+\]|[^:/@\s\[\]]+)(:\d{1,5})?/?")
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_SEED = re.compile(r"SU[A-Z2-7]{56}")
_CREDS = re.compile(r"-BEGIN NATS USER JWT-.+-BEGIN USER NKEY SEED-.+SU[A-Z2-7]{56}", re.DOTALL)


@attrs.frozen
class Nats:
    """How to reach a NATS server.

    Args:
        urls: NATS_URL, one server or several of one cluster; each may hold a user and a password.
        creds: NATS_CREDS, the path of a file of credentials; empty for none.
        nkey: NATS_NKEY, the path of a file that holds a seed, or the seed itself.
        user: NATS_USER; without a password, a token.
        password: NATS_PASSWORD, the user's.
        ca: NATS_CA, the path of the certificates to verify the server with; empty for the system's.
        cert: NATS_CERT, the path of the app's own certificate.
        key: NATS_KEY, the path of that certificate's key.
        prefix: NATS_PREFIX, the prefix of all subjects; empty for the app's name.

    """

    urls: tuple[Secret[str], ...]
    creds: str = ""
    nkey: Secret[str] = attrs.field(factory=lambda: Secret(""))
    user: Secret[str] = attrs.field(factory=lambda: Secret(""))
    password: Secret[str] = attrs.field(factory=lambda: Secret(""))
    ca: str = ""
    cert: str = ""
    key: str = ""
    prefix: str = ""

    @property
    def shown(self) -> str:
        """The servers as shown to people, without the secrets in their URLs."""
        return ", ".join(shown_url(url.reveal()) for url in self.urls)


def shown_url(url: str) -> str:
    """Return *url* without its user and password."""
    scheme, marks, rest = url.rpartition("://")
    secret, at, host = rest.rpartition("@")
    return f"{scheme}{marks}{MASK if secret else ''}{at}{host}"


def _urls(text: str) -> tuple[Secret[str], ...]:
    urls = parse_list(text)
    if not all(_URL.fullmatch(url) for url in urls):
        raise ValueError
    return tuple(Secret(url) for url in urls)


def _shown_urls(text: str) -> str:
    return ", ".join(shown_url(url) for url in parse_list(text))


def _file(path: str) -> str:
    if not os.path.isfile(path):  # noqa: PTH113  (pathlib costs 5 ms at every start)
        raise ValueError
    return path


def _content(path: str) -> str:
    try:
        with open(_file(path), encoding="utf-8") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        raise ValueError from None


def _creds(path: str) -> str:
    if not _CREDS.search(_content(path)):
        raise ValueError
    return path


def _nkey(text: str) -> Secret[str]:
    if not _SEED.fullmatch(text) and not _SEED.fullmatch(_content(text).strip()):
        raise ValueError
    return Secret(text)


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError
    return text


_PEM = "the path of an existing file in PEM format"

NATS_SETTINGS = (
    Setting(
        "NATS_URL",
        "urls",
        "list of URLs",
        "",
        "the server for calls to services in other processes; several URLs are servers of one cluster",
        "nats://host:4222 or tls://host:4222, or several with commas between",
        _urls,
        show=_shown_urls,
    ),
    Setting(
        "NATS_CREDS",
        "creds",
        "path",
        "",
        "a file of credentials; needs the package nkeys",
        "the path of a file that holds a user's JWT and seed, as nsc makes it",
        _creds,
    ),
    Setting(
        "NATS_NKEY",
        "nkey",
        "path",
        "",
        "a file that holds a user's seed, or the seed itself; needs the package nkeys",
        "the path of a file that holds a seed, or the seed of a user: SU and 56 more characters",
        _nkey,
        secret=True,
    ),
    Setting("NATS_USER", "user", "str", "", "the user; a token if NATS_PASSWORD is not set", "", Secret, secret=True),
    Setting("NATS_PASSWORD", "password", "str", "", "the user's password", "", Secret, secret=True),
    Setting("NATS_CA", "ca", "path", "", "certificates to verify the server with; default: the system's", _PEM, _file),
    Setting("NATS_CERT", "cert", "path", "", "the app's own certificate", _PEM, _file),
    Setting("NATS_KEY", "key", "path", "", "the key of the app's own certificate", _PEM, _file),
    Setting(
        "NATS_PREFIX",
        "prefix",
        "str",
        "",
        "the prefix of all subjects; the app's name if not set",
        "words of letters, digits, - and _, with dots between",
        _prefix,
    ),
)
"""The variables of the settings for NATS."""

NATS_VARIABLES: tuple[str, ...] = tuple(setting.name for setting in NATS_SETTINGS)


def read_nats(environ: Mapping[str, str]) -> tuple[Nats | None, list[ConfigError]]:
    """Return the settings, and an error for each wrong variable. The settings are None if NATS_URL is not set."""
    if not environ.get("NATS_URL", "").strip():
        return None, []
    values, errors = read_each(NATS_SETTINGS, environ)
    if not errors:
        found = Nats(**values)
        errors = list(_problems(found))
        if not errors:
            return found, []
    return None, errors


def _problems(nats: Nats) -> Iterator[ConfigError]:
    """Yield the errors in settings that are valid on their own but not together, or cannot be used."""
    if bool(nats.cert) != bool(nats.key):
        missing = "NATS_KEY" if nats.cert else "NATS_CERT"
        hint = "set both NATS_CERT and NATS_KEY, or neither"
        yield ConfigError("is not set", where=missing, hint=hint)
        return
    for name, secret in (("NATS_CREDS", nats.creds), ("NATS_NKEY", nats.nkey.reveal())):
        if secret and find_spec("nkeys") is None:
            hint = "run `just deps-add nkeys`"
            yield ConfigError("needs the package nkeys, which is not installed", where=name, hint=hint)
    if nats.ca or nats.cert:
        try:
            tls_of(nats)
        except (OSError, ValueError) as error:  # `ssl.SSLError` is an OSError
            where = "NATS_CERT and NATS_KEY" if _loads(nats.ca) else "NATS_CA"
            what = f"cannot be loaded: {getattr(error, 'reason', None) or error}"
            hint = "expected PEM: a certificate and its key, without a passphrase"
            yield ConfigError(what, where=where, hint=hint if where != "NATS_CA" else "expected certificates in PEM")


def _loads(ca: str) -> bool:
    try:
        tls_of(Nats((), ca=ca))
    except (OSError, ValueError):
        return False
    return True


def tls_of(nats: Nats) -> ssl.SSLContext:
    """Return the context for TLS.

    Raises:
        OSError: A file cannot be loaded.

    """
    import ssl

    context = ssl.create_default_context(cafile=nats.ca or None)
    if nats.cert:
        context.load_cert_chain(nats.cert, nats.key, password="")  # never prompts for a password
    return context
