"""What a service's folder holds is found, and processes can be started, alike in the tree and in every artifact."""

from __future__ import annotations

import shutil

import pytest

from tests.conformance.program import App, Result

pytestmark = pytest.mark.core


def told(result: Result) -> list[str]:
    """What the service itself has said."""
    return [record["message"] for record in result.records if record["logger"] == "test"]


READER = """
import importlib.metadata, importlib.resources, pkgutil
from importlib.resources import files
from pathlib import Path

@service(oneshot=True)
async def reader() -> None:
    ways = {
        "beside": Path(__file__).parent / "schema.sql",
        "below": Path(__file__).parent / "templates" / "mail.txt",
        "by package": files(__package__) / "schema.sql",
        "by package, below": files(__package__) / "templates" / "mail.txt",
        "by name": files("services.billing") / "schema.sql",
        "by services": files("services") / "billing" / "schema.sql",
        "top": files("services") / "top.txt",
        "regular package": files("services._parts") / "part.bin",
    }
    for way, path in ways.items():
        log.info("%s: %s", way, path.read_text())
    with importlib.resources.as_file(files(__package__) / "schema.sql") as path:
        log.info("as a file: %s", path.read_text())
    log.info("listed: %s", sorted(one.name for one in files(__package__).iterdir() if not one.name.startswith("__")))
    log.info("by pkgutil: %s", pkgutil.get_data("services._parts", "part.bin"))
    log.info("a package has a file: %s", Path(anyio.__file__).is_file())
    log.info("version: %s", importlib.metadata.version("app"))
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="app")
    log.info("script: %s", script.value)
"""


def test_data_is_found_in_each_documented_way(app: App) -> None:
    """Beside the file and below it, by resources of a group, of `services` and of a package; and who the app is."""
    app.service("billing/reader", READER)
    app.write("services/billing/schema.sql", "create")
    app.write("services/billing/templates/mail.txt", "dear")
    app.write("services/top.txt", "top")
    app.write("services/_parts/__init__.py", "")
    app.write("services/_parts/part.bin", "part")
    result = app.run().result()
    assert result.code == 0, result.stderr
    assert told(result) == [
        "beside: create",
        "below: dear",
        "by package: create",
        "by package, below: dear",
        "by name: create",
        "by services: create",
        "top: top",
        "regular package: part",
        "as a file: create",
        "listed: ['reader.py', 'schema.sql', 'templates']",
        "by pkgutil: b'part'",
        "a package has a file: True",
        "version: 0.1.0",
        "script: app.__main__:main",
    ]


STARTER = """
import asyncio, json, multiprocessing, shutil, subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
import anyio.to_process
from services._work import double

def ask(*words: str, **options: Any) -> str:
    done = subprocess.run(words, capture_output=True, text=True, **options)
    return done.stdout.strip() or f"{done.returncode}: {done.stderr}"

@service(oneshot=True)
async def starter() -> None:
    for method in ("spawn", "forkserver", "fork"):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            log.info("%s: %s", method, await asyncio.wrap_future(pool.submit(double, 21)))
        queue = context.Queue()
        process = context.Process(target=queue.put, args=("queued",))
        process.start()
        log.info("%s: %s", method, queue.get(timeout=30))
        process.join()
    with multiprocessing.get_context("spawn").Manager() as manager:
        log.info("manager: %s", manager.dict(a=1).copy())
    log.info("to_process: %s", await anyio.to_process.run_sync(double, 21))
    code = "import anyio, services._work; print(services._work.double(21))"
    log.info("-c: %s", ask(sys.executable, "-c", code))
    log.info("-m: %s", ask(sys.executable, "-u", "-m", "services._work", "21"))
    log.info("script: %s", ask(sys.executable, str(Path(__file__).parent / "_work.py"), "21"))
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(42)", stdout=subprocess.PIPE)
    log.info("asyncio: %s", (await child.communicate())[0].decode().strip())
    log.info("libraries: %s", os.environ.get("LD_LIBRARY_PATH"))
    log.info("env: %s", ask("sh", "-c", "echo $LD_LIBRARY_PATH"))
    for program in ("git", "curl"):
        if shutil.which(program):
            log.info("%s: %s", program, ask(program, "--version").split()[0])
"""

WORK = """
    import sys

    def double(number: int) -> int:
        return 2 * number

    if __name__ == "__main__":
        import anyio
        print(double(int(sys.argv[1])))
"""


def test_processes_are_started_in_each_way(app: App) -> None:
    """By multiprocessing, anyio, asyncio and subprocess; git and curl find their own libraries."""
    app.service("starter", STARTER)
    app.write("services/_work.py", WORK)
    result = app.run(LD_LIBRARY_PATH="/opt/mine").result()
    assert result.code == 0, result.stderr
    programs = [f"{name}: {name}" for name in ("git", "curl") if shutil.which(name)]
    assert told(result) == [
        *(f"{method}: {said}" for method in ("spawn", "forkserver", "fork") for said in ("42", "queued")),
        "manager: {'a': 1}",
        "to_process: 42",
        "-c: 42",
        "-m: 42",
        "script: 42",
        "asyncio: 42",
        "libraries: /opt/mine",
        "env: /opt/mine",
        *programs,
    ]
