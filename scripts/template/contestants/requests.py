"""Starts a server, has wrk send it requests over 32 connections, and tells how many it answers in a second.

    python -m contestants.requests PORT SECONDS -- the words that start the server

Where wrk meets an error, or another answer than 200, there is no number.
"""

import json
import re
import socket
import subprocess
import sys
import time

PATIENCE = 30.0  # seconds until it listens
CONNECTIONS = "32"


def wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                sys.exit("the server does not listen")
            time.sleep(0.01)
        else:
            return


def requests(port: int, seconds: str) -> float:
    words = ["wrk", "--threads", "1", "--connections", CONNECTIONS, "--duration", f"{seconds}s"]
    done = subprocess.run([*words, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True)
    found = re.search(r"^Requests/sec: +([\d.]+)$", done.stdout, re.MULTILINE)
    if found is None or re.search("Socket errors|Non-2xx", done.stdout):
        sys.exit(f"wrk said: {' '.join(done.stdout.split())}")
    return float(found[1])


def main() -> None:
    port, seconds, _, *words = sys.argv[1:]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(int(port), server)
            requests(int(port), "1")  # to warm up
            print(json.dumps({"requests / s": requests(int(port), seconds)}))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
