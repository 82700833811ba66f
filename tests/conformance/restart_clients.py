"""Clients of the example API and of the admin server, while the service that both belong to is restarted.

Prints how many requests were answered, and with what. A request on a connection that was kept, and that the server
closed before it read it, is repeated as RFC 9110 says (9.2.2, for those that change nothing); nothing else is.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
from collections import Counter

REQUESTS = 10_000  # at least, to each server
RESTARTS = 5
PATIENCE = 300  # seconds
EACH = 50  # requests of which one adds an item
PORTS = {"api": 8000, "admin": 9090}
PATHS = {"api": "/", "admin": "/livez"}
CLOSED = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)

answers = {server: Counter[str]() for server in PORTS}
failures: list[str] = []
repeated = Counter[str]()
moved = threading.Condition()
ended = threading.Event()


def ask(connection: http.client.HTTPConnection, method: str, path: str) -> int:
    """Send a request, and return the answer's status."""
    connection.request(method, path, json.dumps({"name": "a shirt"}) if method == "POST" else None)
    response = connection.getresponse()
    response.read()
    return response.status


def client(server: str, *, keeps: bool) -> None:
    """Send requests until all is over."""
    connection = http.client.HTTPConnection("127.0.0.1", PORTS[server], timeout=PATIENCE)
    asked = 0
    while not ended.is_set():
        asked += 1
        adds = server == "api" and not keeps and asked % EACH == 0
        fresh = connection.sock is None
        try:
            status = ask(connection, *(("POST", "/items") if adds else ("GET", PATHS[server])))
        except Exception as error:  # noqa: BLE001  (each is one too many)
            connection.close()
            with moved:
                if isinstance(error, CLOSED) and not fresh:
                    repeated[server] += 1
                else:
                    failures.append(f"{server}, {keeps=}, {adds=}: {error!r}")
            continue
        if not keeps:
            connection.close()
        with moved:
            answers[server][str(status)] += 1
            moved.notify_all()
    connection.close()


def come(part: float) -> bool:
    """Wait until each server has answered this part of all requests; False if that does not come."""
    with moved:
        return moved.wait_for(lambda: all(count.total() >= REQUESTS * part for count in answers.values()), PATIENCE)


def items() -> int:
    """Return how many items the API has."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORTS["api"], timeout=PATIENCE)) as connection:
        connection.request("GET", "/items")
        return len(json.loads(connection.getresponse().read()))


def main() -> None:
    """Restart the service each time that a part of the requests is answered."""
    before = items()
    kinds = [("api", False)] * 4 + [("api", True)] * 2 + [("admin", False), ("admin", True)]
    threads = [threading.Thread(target=client, args=(server,), kwargs={"keeps": keeps}) for server, keeps in kinds]
    for thread in threads:
        thread.start()
    restarts = 0
    for number in range(RESTARTS + 1):
        if not come((number + 1) / (RESTARTS + 1)):
            failures.append("the answers do not come")
            break
        if number < RESTARTS:
            subprocess.run(["systemctl", "restart", "shop.service"], check=True, stdout=sys.stderr)
            restarts += 1
    ended.set()
    for thread in threads:
        thread.join()
    told = {"answers": answers, "failures": failures, "repeated": repeated, "restarts": restarts}
    print(json.dumps({**told, "items": items() - before}))


if __name__ == "__main__":
    main()
