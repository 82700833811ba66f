"""What may be shown of an address, and which addresses git is not given."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

from addresses import mask, scheme_of, without_password


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:secret@git.example.com/x.git", "https://git.example.com/x.git"),  # pragma: allowlist secret
        (
            "https://me:p@ss:w@rd@git.example.com:8443/x.git",
            "https://git.example.com:8443/x.git",
        ),  # pragma: allowlist secret
        ("https://secret@git.example.com/@scope/x.git", "https://git.example.com/@scope/x.git"),
        ("https://me:sec/ret@git.example.com/x.git", "https://git.example.com/x.git"),  # pragma: allowlist secret
        ("https://me:sec]/ret@git.example.com/x.git", "https://git.example.com/x.git"),  # pragma: allowlist secret
        ("https://me:s@/ret@git.example.com/x.git", "https://git.example.com/x.git"),  # pragma: allowlist secret
        ("https://me:s]:1/ret@[::1]:8443/x.git", "https://[::1]:8443/x.git"),  # pragma: allowlist secret
        ("https://git.example.com/x.git?private_token=secret#a", "https://git.example.com/x.git"),
        ("https://git.example.com?secret", "https://git.example.com"),
        ("https://git.example.com?as=me/a@b", "https://git.example.com"),
        ("ssh://git:secret@git.example.com/x.git", "ssh://git@git.example.com/x.git"),  # pragma: allowlist secret
        ("ssh://git@git.example.com:2222/x.git", "ssh://git@git.example.com:2222/x.git"),
        ("git@git.example.com:x.git", "git@git.example.com:x.git"),
        ("https://[::1]:8443/x@y.git", "https://[::1]:8443/x@y.git"),  # pragma: allowlist secret
        ("file:///a@b/what?.git", "file:///a@b/what?.git"),
        ("../upstream", "../upstream"),
    ],
)
def test_what_is_shown(address: str, shown: str) -> None:
    """Enough to reach it again, and nothing that opens it."""
    assert without_password(address) == shown
    assert mask(f"unable to access '{address}': no") == f"unable to access '{shown}': no" or "?" in address


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("me:secret@git.example.com:x.git", "me@git.example.com:x.git"),
        ("../up:stream@2/x", "../up:stream@2/x"),
        ("a:b", "a:b"),
    ],
)
def test_what_is_shown_of_what_is_no_url(address: str, shown: str) -> None:
    """A path is shown whole; what comes before an @ may hold a password."""
    assert without_password(address) == shown


ANY = st.characters(codec="utf-8", exclude_categories=["Z", "C"])
OF_URLS = st.sampled_from("/:@[]?#&=%a1")  # the characters that mean something in an address


@given(st.text(ANY | OF_URLS, min_size=1).map(lambda text: f"Q{text}Q"))
def test_no_password_is_ever_shown(secret: str) -> None:
    """Whatever characters are in it."""
    for address in (f"https://me:{secret}@git.example.com/x.git", f"https://git.example.com/x.git?token={secret}"):
        assert secret not in without_password(address)
        assert secret not in mask(f"fatal: {address} is not there")


@pytest.mark.parametrize(
    ("address", "scheme"),
    [
        ("https://git.example.com/x.git", "https"),
        ("HTTP://git.example.com/x.git", "http"),
        ("git@git.example.com:x.git", "ssh"),
        ("box:/srv/x.git", "ssh"),
        ("[::1]:x.git", "ssh"),
        ("file:///srv/x.git", "file"),
        ("git://git.example.com/x.git", "git"),
        *((address, "") for address in ("/srv/x.git", "../x", "x", "", "ext::sh -c id", "ftp://x/y", "fd::3")),
        *((f"{scheme}://-oProxyCommand=id/x", "") for scheme in ("ssh", "https", "git", "file", "http")),
        *((f"ssh://{host}/x", "") for host in ("git@-oX", "-oX@host", "%2doX", "git@%2DoX", "[-oX]", "git@[-oX]")),
        *((address, "") for address in ("-oX:x", "git@-oX:x", "host:-x", "https://host/\x1b[2J", "ssh://a b/x")),
    ],
)
def test_how_git_would_reach_it(address: str, scheme: str) -> None:
    """Nothing that begins with a dash reaches a program that might take it for an option."""
    assert scheme_of(address) == scheme
