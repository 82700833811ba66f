"""A certificate authority of the tests' own, and what it signs; made by the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path

import attrs


@attrs.frozen
class Certificates:
    """The files: the authority's certificate, and a certificate and a key each for a server and a client."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def certificates(folder: Path) -> Certificates:
    """Make all of them in *folder*; the server's is for 127.0.0.1."""
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    new = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    usage = ("-addext", "keyUsage = critical, keyCertSign, cRLSign")
    openssl("req", "-x509", *new, "-keyout", ca_key, "-out", ca, "-subj", "/CN=the tests' authority", *usage)
    names = folder / "names"
    # Python 3.13 and newer require the usage and the key's identifier, as RFC 5280 does.
    names.write_text("subjectAltName = IP:127.0.0.1, DNS:localhost\nauthorityKeyIdentifier = keyid\n")
    made: list[Path] = [ca]
    for name in ("server", "client"):
        asked, signed, key = (folder / f"{name}.{end}" for end in ("csr", "pem", "key"))
        openssl("req", *new[:-2], "-keyout", key, "-out", asked, "-subj", f"/CN={name}")
        by = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", names)
        openssl("x509", "-req", "-in", asked, "-out", signed, *by)
        made += signed, key
    return Certificates(*made)
