"""Read NATS_URL and the related settings, named as in the nats command line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

import attrs

from kernel.config.values import Secret, parse_list
from kernel.errors import ConfigError
from kernel.masking import MASK

NATS_VARIABLES = (
    "NATS_URL",
    "NATS_CREDS",
    "NATS_NKEY",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_CA",
    "NATS_CERT",
    "NATS_KEY",
    "NATS_PREFIX",
)
_FILES = ("NATS_CREDS", "NATS_CA", "NATS_CERT", "NATS_KEY")
_URL = re.compile(r"((nats|tls|ws|wss)://)?([^/@\s]*@)?(\[[0-9A-Fa-f:.]+\]|[^:/@\s\[\]]+)(:\d{1,5})?/?")
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_SEED = re.compile(r"SU[A-Z2-7]{56}")


@attrs.frozen
class Nats:
    """How to reach a NATS server.

    Args:
        urls: NATS_URL, one server or several of one cluster; each may hold a user and a password.
        creds: NATS_CREDS, the path of a file of credentials; empty for none.
        nkey: NATS_NKEY, the path of a file that holds a seed, or the seed itself.
        user: NATS_USER.
        password: NATS_PASSWORD.
        ca: NATS_CA, the path of the certificates to verify the server with; empty for the system's.
        cert: NATS_CERT, the path of the app's own certificate.
        key: NATS_KEY, the path of that certificate's key.
        prefix: NATS_PREFIX, the prefix of all subjects; empty for the app's name.

    """

    urls: tuple[Secret[str], ...]
    creds: str = ""
    nkey: Secret[str] = attrs.field(factory=lambda: Secret(""))
    user: str = ""
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


def read_nats(environ: Mapping[str, str]) -> tuple[Nats | None, list[ConfigError]]:
    """Return the settings, and an error for each wrong variable. The settings are None if NATS_URL is not set."""
    errors: list[ConfigError] = []
    values = {name: environ.get(name, "").strip() for name in NATS_VARIABLES}
    if not values["NATS_URL"]:
        return None, errors

    def refuse(name: str, what: str, hint: str) -> None:
        errors.append(ConfigError(what, where=name, hint=hint))

    urls = parse_list(values["NATS_URL"])
    for url in urls:
        if not _URL.fullmatch(url):
            refuse(
                "NATS_URL",
                f"is {shown_url(url)!r}",
                "expected nats://host:4222 or tls://host:4222, or several with commas between",
            )
    for name in _FILES:
        _check_file(name, values[name], refuse)
    seed = _SEED.fullmatch(values["NATS_NKEY"])
    if not seed and values["NATS_NKEY"] and not os.path.isfile(values["NATS_NKEY"]):  # noqa: PTH113
        refuse("NATS_NKEY", f"is {MASK}", "expected the path of a file that holds a seed, or the seed of a user")
    if bool(values["NATS_CERT"]) != bool(values["NATS_KEY"]):
        missing = "NATS_KEY" if values["NATS_CERT"] else "NATS_CERT"
        refuse(missing, "is not set", "set both NATS_CERT and NATS_KEY, or neither")
    if values["NATS_PREFIX"] and not _PREFIX.fullmatch(values["NATS_PREFIX"]):
        refuse(
            "NATS_PREFIX",
            f"is {values['NATS_PREFIX']!r}",
            "expected words of letters, digits, - and _, with dots between",
        )
    if errors:
        return None, errors
    return (
        Nats(
            tuple(Secret(url) for url in urls),
            values["NATS_CREDS"],
            Secret(values["NATS_NKEY"]),
            values["NATS_USER"],
            Secret(values["NATS_PASSWORD"]),
            values["NATS_CA"],
            values["NATS_CERT"],
            values["NATS_KEY"],
            values["NATS_PREFIX"],
        ),
        errors,
    )


def _check_file(name: str, path: str, refuse: Callable[[str, str, str], None]) -> None:
    if path and not os.path.isfile(path):  # noqa: PTH113  (pathlib costs 5 ms at every start)
        refuse(name, f"is {path!r}", "expected the path of an existing file")
