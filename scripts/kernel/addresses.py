"""Handle addresses for git: mask their secrets, and refuse dangerous ones."""

from __future__ import annotations

import re
from urllib.parse import unquote

OVER_SSH = frozenset({"ssh", "git+ssh", "ssh+git"})
SAFE = frozenset({"https", "ssh", "file"})  # schemes with which nobody on the network path can change the content
PLAIN = frozenset({"http", "git"})
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(\S+)")
BY_SSH = re.compile(r"(?:([^\s@:/]+)@)?(\[[^\s\]]+\]|[^\s@:/\[]+):(?!:)([^\s]+)")  # user@host:path
HOST = re.compile(r"(\[[\w.:%]+\]|[^:\[\]]+)(:\d*)?")  # with or without a port


def without_password(address: str) -> str:
    """Remove secrets from *address*, since it is shown and written to files.

    A URL loses its credentials, its query and its fragment. With ssh only the password is removed, since the user's
    name is needed to connect.
    """
    scheme, is_url, rest = address.partition("://")
    if not is_url:
        user, at, place = address.rpartition("@")
        return f"{user.partition(':')[0]}@{place}" if at and ":" in user and "/" not in user else address
    if scheme.lower() == "file":
        return address
    host, path = _split(rest)
    user, _, host = host.rpartition("@")
    kept = user.partition(":")[0] if scheme.lower() in OVER_SSH else ""
    return f"{scheme}://{f'{kept}@' if kept else ''}{re.split('[?#]', host + path)[0]}"


def _split(rest: str) -> tuple[str, str]:
    """Split the part after a scheme into host and path; the host includes credentials, which may contain slashes."""
    host, slash, path = rest.partition("/")
    if "@" in path and not HOST.fullmatch(host.rpartition("@")[2]):
        user, _, rest = rest.rpartition("@")
        host, slash, path = rest.partition("/")
        host = f"{user}@{host}"
    return host, slash + path


def mask(text: str) -> str:
    """Apply `without_password` to each URL in *text*."""
    return URL.sub(lambda found: without_password(found[0]), text)


def scheme_of(address: str) -> str:
    """Return how git would reach *address*: the scheme of a URL, "ssh" for `user@host:path`; empty for anything else.

    Also empty if a part of it begins with a dash, which a program could take for an option.
    """
    url, short = URL.fullmatch(address), BY_SSH.fullmatch(address)
    if url:
        scheme, (host, path) = url[1].lower(), _split(url[2])
        user, _, host = host.rpartition("@")
    elif short:
        scheme, user, host, path = "ssh", short[1] or "", short[2], short[3]
    else:
        return ""
    dashes = any(unquote(part).startswith("-") for part in (user, host.lstrip("["), path))
    return "" if dashes or not address.isprintable() or scheme not in SAFE | PLAIN else scheme
