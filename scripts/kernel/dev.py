"""`just dev`: run the app, and restart it gracefully when one of its files is saved.

A new version imports everything it needs while the current one is still running. If that fails, its error is printed
and the current version continues. Otherwise the current version is stopped, and the new one starts.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from recipe import tell_use

ROOT = Path(__file__).resolve().parents[2]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
QUIET = 20  # milliseconds without a save after which a burst is over
BURST = 400  # maximum milliseconds of a burst
NOT_THE_APP = {"tests", "scripts", "docs", "build", "dist", "htmlcov", "node_modules", "__pycache__"}
BESIDE_CODE = {
    *(".css", ".csv", ".graphql", ".html", ".j2", ".jinja", ".jinja2", ".js", ".json"),
    *(".md", ".proto", ".sql", ".toml", ".txt", ".xml", ".yaml", ".yml"),
}
"""Files that may lie beside the code, such as templates. The app itself writes databases and logs."""


def is_of_the_app(path: Path) -> bool:
    """Return whether a change of *path*, which may no longer exist, can affect the app."""
    try:
        parts = path.relative_to(ROOT).parts
    except ValueError:
        return False
    if parts == (".env",):
        return True
    if any(part.startswith(".") for part in parts) or NOT_THE_APP & set(parts):
        return False
    return path.suffix == ".py" or (len(parts) > 1 and path.suffix in BESIDE_CODE)


def folders() -> set[Path]:
    """Return the app's folders: top-level folders that contain code."""
    candidates = (path for path in ROOT.iterdir() if path.is_dir() and is_of_the_app(path / "x.py"))
    return {path for path in candidates if path.name in {"app", "services"} or any(path.glob("*.py"))}


class Watch:
    """Watches for saved files, in separate threads."""

    def __init__(self, woken: int) -> None:
        self._woken = woken
        self._saved = threading.Event()
        self._folders: set[Path] = set()
        self._end = threading.Event()
        self._start([ROOT], recursive=False)
        self._watch_folders()

    def take(self) -> bool:
        """Return whether something was saved since the last call."""
        found = self._saved.is_set()
        self._saved.clear()
        return found

    def _watch_folders(self) -> None:
        found = folders()
        if found != self._folders:
            self._folders = found
            self._end.set()
            self._end = threading.Event()
            self._start(sorted(found), recursive=True)

    def _start(self, paths: Iterable[Path], *, recursive: bool) -> None:
        from watchfiles._rust_notify import RustNotify

        polling = bool(os.environ.get("WATCHFILES_FORCE_POLLING"))
        notify = RustNotify([str(path) for path in paths], False, polling, 100, recursive, True)  # noqa: FBT003
        end = self._end if recursive else threading.Event()
        threading.Thread(target=self._read, args=(notify, end, recursive), daemon=True).start()

    def _read(self, notify: object, end: threading.Event, recursive: bool) -> None:  # noqa: FBT001
        while not end.is_set():
            changes = notify.watch(BURST, QUIET, 1000, end)  # type: ignore[attr-defined]
            if not isinstance(changes, set):
                continue
            saved = any(is_of_the_app(Path(path)) for _, path in changes)
            if not recursive:
                before = self._folders
                self._watch_folders()
                saved = saved or self._folders != before
            if saved:
                self._saved.set()
                os.write(self._woken, b"\0")


class Version:
    """A process of the app.

    Args:
        words: The arguments of `app run`.

    """

    def __init__(self, words: list[str]) -> None:
        self.prepared = self.silent = False
        self.asked = False
        self.gate, theirs = socket.socketpair()
        with theirs:
            env = {**os.environ, "KERNEL_DEV_GATE": str(theirs.fileno())}
            # Bytecode is found by the size of its source and the second of the last save: after two saves in one
            # second,
            # the bytecode of the first might be used.
            env["PYTHONDONTWRITEBYTECODE"] = "1"
            command = [str(ROOT / "scripts" / "kernel" / "script"), "run", *words]
            self.process = subprocess.Popen(command, cwd=ROOT, env=env, pass_fds=[theirs.fileno()])

    def ended(self) -> int | None:
        """Return the exit code; None while it is running."""
        return self.process.poll()

    def hear(self) -> None:
        """Read its messages: that it is prepared; or, if the socket closes without one, that it will not be."""
        try:
            said = self.gate.recv(64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:  # it was killed before it had read everything
            said = b""
        self.prepared = self.prepared or bool(said)
        self.silent = not said

    def release(self) -> None:
        """Let it continue after its imports."""
        with contextlib.suppress(OSError):
            self.gate.sendall(b"run\n")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Request it to stop."""
        self.asked = True
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def discard(self) -> None:
        """End it at once, since it has not started to run."""
        self.gate.close()
        self.process.kill()
        self.process.wait()


class Dev:
    """The versions: one that runs, one that waits for its end, and one that is importing. Each may be missing."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._wake, woken = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(woken, False)
        self._asked: list[int] = []
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._caught)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._watch = Watch(woken)
        self._current: Version | None = None
        self._good: Version | None = None
        self._trying: Version | None = Version(words)
        self._leaving: list[Version] = []  # only their interpreters have not ended
        self._code = 0
        self._over = False
        self._since = time.monotonic()

    def run(self) -> int:
        """Run until a signal ends it, and return the app's exit code."""
        while not (self._over and self._current is None and not self._leaving):
            heard = [version for version in (self._trying, self._current) if version is not None and not version.silent]
            select.select([self._wake, *(version.gate.fileno() for version in heard)], [], [])
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            if self._current is not None:
                self._current.hear()
            self._obey()
            if not self._over:
                self._advance()
            self._look_at_current()
        return self._code

    def _caught(self, number: int, _: FrameType | None) -> None:
        self._asked.append(number)

    def _obey(self) -> None:
        """Forward signals. After the first one, no new version is started."""
        while self._asked:
            number = self._asked.pop(0)
            self._over = True
            for version in (self._trying, self._good):
                if version is not None:
                    version.discard()
            self._trying = self._good = None
            if self._current is not None:
                self._current.stop(number)

    def _advance(self) -> None:
        """Continue with the newest version."""
        if self._watch.take():
            self._since = time.monotonic()
            if self._trying is not None:
                self._trying.discard()
            self._trying = Version(self._words)
        if self._trying is not None:
            self._trying.hear()
            if self._trying.prepared:
                if self._good is not None:
                    self._good.discard()
                self._good, self._trying = self._trying, None
                if self._current is not None and not self._current.asked:
                    self._current.stop()
            elif self._trying.ended() is not None:
                self._say_failed(self._trying)
                self._trying = None
        if self._current is not None and self._current.asked and self._current.silent and self._good is not None:
            self._leaving.append(self._current)
            self._current = None
        if self._current is None and self._trying is None and self._good is not None:
            self._current, self._good = self._good, None
            self._current.release()

    def _look_at_current(self) -> None:
        for version in self._leaving.copy():
            if version.ended() is not None:
                version.gate.close()
                self._leaving.remove(version)
        if self._current is None or (code := self._current.ended()) is None:
            return
        if not self._current.asked:
            say(f"the app has ended by itself, with exit code {code}; the next save starts it again.")
        self._current.gate.close()
        self._current, self._code = None, code
        if not self._over:
            self._advance()

    def _say_failed(self, version: Version) -> None:
        version.gate.close()
        if self._current is not None or self._good is not None:
            say("the saved version does not start, so the app continues unchanged; the next save tries again.")
        else:
            say("the app does not start; the next save tries again.")


def say(text: str) -> None:
    """Print *text* between the app's output."""
    print(f"just dev: {text}", file=sys.stderr, flush=True)


def main(words: list[str]) -> NoReturn:
    """Run `just dev`."""
    if not {"--help", "-h"}.isdisjoint(words):
        tell_use("dev", "just dev, or just dev example-api, with the arguments of `just run`")
        sys.exit(0)
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        say("watchfiles is not installed; add it: just deps-add watchfiles GROUP=dev")
        sys.exit(2)
    compileall.compile_dir(str(ROOT / "kernel"), quiet=2)  # once, since the app's versions write no bytecode
    sys.exit(Dev(words).run())


if __name__ == "__main__":
    main(sys.argv[1:])
