"""Logins, TLS, and servers of one cluster: each with a real server, and what the user sees where it does not fit."""

from __future__ import annotations

import json
import time
from base64 import b32encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import nkeys  # type: ignore[import-untyped]
import pytest
from nacl.signing import SigningKey

from tests.calls.conftest import App, Server, apps, until
from tests.calls.scene import User, UsersHere, users_of, web_of
from tests.certificates import Certificates, certificates
from tests.ports import free_port

pytestmark = pytest.mark.anyio

Start = Callable[..., Server]
WRONG = "secret-but-wrong"  # pragma: allowlist secret


def configured(folder: Path, text: str) -> tuple[str, str]:
    """Options for a server with this configuration."""
    file = folder / "server.conf"
    file.write_text(text)
    return "-c", str(file)


# -- keys --------------------------------------------------------------------------------------------------------


def crc16(data: bytes) -> int:
    """The checksum at the end of a key: CRC-16/XMODEM."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


class Key:
    """A key pair of NATS: of an operator, an account or a user."""

    def __init__(self, kind: int) -> None:
        self._key = SigningKey.generate()
        prefix = bytes([18 << 3 | kind >> 5, (kind & 31) << 3])
        raw = prefix + bytes(self._key)
        self.seed = b32encode(raw + crc16(raw).to_bytes(2, "little")).decode().rstrip("=")
        public = bytes([kind]) + bytes(self._key.verify_key)
        self.public = b32encode(public + crc16(public).to_bytes(2, "little")).decode().rstrip("=")

    def jwt(self, name: str, subject: str, more: dict[str, Any]) -> str:
        """A claim about *subject*, signed by this key."""
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        claims = {"jti": name, "iat": int(time.time()), "iss": self.public, "name": name, "sub": subject, "nats": more}
        text = ".".join(_url(json.dumps(part).encode()) for part in (header, claims))
        return f"{text}.{_url(self._key.sign(text.encode()).signature)}"


def _url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3


def test_keys_are_as_natss_own_library_reads_them() -> None:
    """Else the tests below would test the tests."""
    key = Key(USER)
    assert nkeys.from_seed(bytearray(key.seed.encode())).public_key.decode() == key.public


def credentials(folder: Path) -> tuple[str, Path]:
    """A server's configuration that trusts an operator, and a file of credentials of a user in its one account."""
    operator, account, user = Key(OPERATOR), Key(ACCOUNT), Key(USER)
    limits = dict.fromkeys(("subs", "conn", "leaf", "imports", "exports", "data", "payload"), -1)
    about = {"limits": {**limits, "wildcards": True}, "type": "account", "version": 2}
    of_account = operator.jwt("account", account.public, about)
    of_operator = operator.jwt("operator", operator.public, {"type": "operator", "version": 2})
    rights = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2}
    creds = folder / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{account.jwt('user', user.public, rights)}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    text = f"operator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {account.public}: {of_account} }}\n"
    return text, creds


# -- logins ------------------------------------------------------------------------------------------------------

TEXTS = {
    "user and password": 'authorization { user: me, password: "right one" }',
    "token": 'authorization { token: "right-token" }',  # pragma: allowlist secret
}


def login(kind: str, folder: Path) -> tuple[str, dict[str, str], dict[str, str]]:  # noqa: PLR0911
    """A server's configuration, what logs in, and what does not."""
    match kind:
        case "user and password":
            right = {"NATS_USER": "me", "NATS_PASSWORD": "right one"}
            return TEXTS[kind], right, {**right, "NATS_PASSWORD": WRONG}
        case "in the URL":
            return TEXTS["user and password"], {"@": "me:right%20one@"}, {"@": f"me:{WRONG}@"}
        case "token":
            return TEXTS[kind], {"NATS_USER": "right-token"}, {"NATS_USER": WRONG}
        case "token in the URL":
            return TEXTS["token"], {"@": "right-token@"}, {"@": f"{WRONG}@"}
        case "seed":
            key, other = Key(USER), Key(USER)
            text = f"authorization {{ users = [ {{ nkey: {key.public} }} ] }}"
            return text, {"NATS_NKEY": key.seed}, {"NATS_NKEY": other.seed}
        case "seed in a file":
            key, other, file, wrong = Key(USER), Key(USER), folder / "seed", folder / "wrong"
            file.write_text(f"{key.seed}\n")
            wrong.write_text(other.seed)
            text = f"authorization {{ users = [ {{ nkey: {key.public} }} ] }}"
            return text, {"NATS_NKEY": str(file)}, {"NATS_NKEY": str(wrong)}
        case _:
            text, creds = credentials(folder)
            (folder / "other").mkdir()
            _, other_creds = credentials(folder / "other")
            return text, {"NATS_CREDS": str(creds)}, {"NATS_CREDS": str(other_creds)}


KINDS = ("user and password", "in the URL", "token", "token in the URL", "seed", "seed in a file", "credentials")


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_login(kind: str, own_nats: Start, prefix: str, tmp_path: Path) -> None:
    """What is right logs in and calls; what is wrong is one error that shows no secret, and exit code 1."""
    text, right, wrong = login(kind, tmp_path)
    server = own_nats(*configured(tmp_path, text))

    def app(*services: Any, environ: dict[str, str]) -> App:
        environ = dict(environ)
        url = server.url.replace("://", f"://{environ.pop('@', '')}")
        return App(services, url, prefix.replace(" ", "_"), environ=environ)

    web = app(web_of(), environ=right)
    async with apps(web, app(users_of(UsersHere()), environ=right)):
        assert await web.value("web").get(3) == User(3, "user 3")
    refused = app(web_of(), environ=wrong)
    async with apps(refused):
        pass
    assert refused.report is not None
    assert refused.report.exit_code == 1
    error = refused.orchestrator.supervisors["nats"].error
    assert isinstance(error, PermissionError)
    assert "refused the login: Authorization Violation; see NATS_USER, NATS_PASSWORD" in str(error)
    assert server.url.removeprefix("nats://") in str(error)
    assert not any(secret in str(error) for secret in (*wrong.values(), WRONG))


# -- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for all tests here."""
    return certificates(tmp_path_factory.mktemp("certificates"))


def encrypted(made: Certificates, more: str = "") -> str:
    return f'tls {{ cert_file: "{made.server}", key_file: "{made.server_key}"{more} }}'


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_tls(scheme: str, made: Certificates, own_nats: Start, prefix: str, tmp_path: Path) -> None:
    """By an authority of one's own; the server may ask for it, whatever the scheme says."""
    server = own_nats(*configured(tmp_path, encrypted(made)))
    url, environ = server.url.replace("nats://", f"{scheme}://"), {"NATS_CA": str(made.ca)}
    web = App((web_of(),), url, prefix, environ=environ)
    async with apps(web, App((users_of(UsersHere()),), url, prefix, environ=environ)):
        assert await web.value("web").get(3) == User(3, "user 3")
        assert await web.value("web").size("x" * 900_000) == 900_000


async def test_a_certificate_of_the_client(made: Certificates, own_nats: Start, prefix: str, tmp_path: Path) -> None:
    """Where the server requires one: with it calls go, without it one error says what is missing."""
    server = own_nats(*configured(tmp_path, encrypted(made, f', ca_file: "{made.ca}", verify: true')))
    url, ca = server.url.replace("nats://", "tls://"), {"NATS_CA": str(made.ca)}
    own = {**ca, "NATS_CERT": str(made.client), "NATS_KEY": str(made.client_key)}
    web = App((web_of(),), url, prefix, environ=own)
    async with apps(web, App((users_of(UsersHere()),), url, prefix, environ=own)):
        assert await web.value("web").get(3) == User(3, "user 3")
    without = App((web_of(),), url, prefix, environ=ca)
    async with apps(without):
        pass
    assert without.report is not None
    assert without.report.exit_code == 1
    assert "NATS_CERT" in str(without.orchestrator.supervisors["nats"].error)


async def test_a_server_that_is_not_trusted(made: Certificates, own_nats: Start, prefix: str, tmp_path: Path) -> None:
    """The start fails, by the reason and the variable: another try would end the same."""
    server = own_nats(*configured(tmp_path, encrypted(made)))
    for url in (server.url, server.url.replace("nats://", "tls://")):
        web = App((web_of(),), url, prefix)
        async with apps(web):
            pass
        assert web.report is not None
        assert web.report.exit_code == 1
        error = str(web.orchestrator.supervisors["nats"].error)
        assert "is not trusted: " in error
        assert "NATS_CA" in error


@pytest.mark.parametrize("ca", [False, True])
async def test_tls_with_a_server_that_has_none(ca: bool, made: Certificates, own_nats: Start, prefix: str) -> None:
    """No login is sent in the clear: the start fails, whether the URL or NATS_CA asks for TLS."""
    url = own_nats().url
    environ = {"NATS_USER": "me", "NATS_PASSWORD": WRONG, **({"NATS_CA": str(made.ca)} if ca else {})}
    web = App((web_of(),), url if ca else url.replace("nats://", "tls://"), prefix, environ=environ)
    async with apps(web):
        pass
    assert web.report is not None
    assert web.report.exit_code == 1
    assert "has no TLS, which tls:// in NATS_URL, NATS_CA" in str(web.orchestrator.supervisors["nats"].error)


async def test_tls_where_the_server_leaves_it_open(
    made: Certificates, own_nats: Start, prefix: str, tmp_path: Path
) -> None:
    """Who asks for it gets it, although the server also takes those who do not."""
    server = own_nats(*configured(tmp_path, encrypted(made) + "\nallow_non_tls: true"))
    web = App((web_of(),), server.url.replace("nats://", "tls://"), prefix, environ={"NATS_CA": str(made.ca)})
    async with apps(web, App((users_of(UsersHere()),), server.url, prefix)):
        assert await web.value("web").get(3) == User(3, "user 3")
        assert web.wiring.link
        assert web.wiring.link._client
        assert type(web.wiring.link._client._transport._io_writer.get_extra_info("ssl_object")).__name__ == "SSLObject"  # type: ignore[union-attr]


# -- several servers ---------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(own_nats: Start, tmp_path: Path) -> tuple[Server, Server]:
    """Two servers of one cluster, which log in the same user."""
    routes = [free_port(), free_port()]
    servers = []
    for number in (0, 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        cluster = (
            f"cluster {{ name: c, listen: 127.0.0.1:{routes[number]}, pool_size: -1,"
            f" routes: [nats://127.0.0.1:{routes[1 - number]}] }}"
        )
        options = configured(folder, f"server_name: s{number}\n{TEXTS['user and password']}\n{cluster}\n")
        servers.append(own_nats(*options))
    return servers[0], servers[1]


@pytest.mark.parametrize("known", [2, 1], ids=["both in NATS_URL", "one in NATS_URL"])
async def test_a_server_of_a_cluster_is_killed(
    known: int, cluster: tuple[Server, Server], prefix: str, tmp_path: Path
) -> None:
    """Both sides go on by way of the other one, which the servers tell of; nobody is restarted."""
    first, second = cluster
    url = ",".join(server.url.replace("://", "://me:right%20one@") for server in (first, second)[:known])
    prefix = prefix.replace(" ", "_")
    web, users = App((web_of(),), url, prefix), App((users_of(UsersHere()),), url, prefix)
    async with apps(web, users):
        assert await web.value("web").get(3) == User(3, "user 3")
        links = [app.wiring.link for app in (web, users)]
        assert all(link and link.server == first.url.removeprefix("nats://") for link in links)
        await until(lambda: all(link and link._client and link._client.discovered_servers for link in links))
        first.kill()
        other = second.url.removeprefix("nats://")
        await until(lambda: all(link and link.server == other for link in links))
        with anyio.fail_after(30):  # the provider's subscription may take a moment to be known
            assert await web.value("web").get(4) == User(4, "user 4")
        assert web.orchestrator.supervisors["web"].attempt == 1
