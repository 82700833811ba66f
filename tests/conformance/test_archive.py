"""The same app as one zip file: found, listed and run without a tree, and only what is enabled is imported."""

from __future__ import annotations

import pytest

from tests.conformance.program import App

WORKER = """
from services._shared import GREETING

@attrs.frozen
class WorkerConfig:
    port: int = 1

@service(oneshot=True)
async def worker(config: WorkerConfig) -> None:
    log.info(GREETING)
"""
TELLTALE = 'print("imported", __name__, file=sys.stderr)\n'


@pytest.mark.minutes
@pytest.mark.parametrize("folders", [True, False], ids=["with folder entries", "without"])
def test_runs_from_a_bare_zip(tree: App, folders: bool) -> None:
    """Names, summaries, version, a group's service, a package, a config's error with its line, and a run."""
    tree.service("api", TELLTALE + "@service(depends=['billing-worker'])\nasync def api() -> None:\n    log.info('on')")
    tree.service(
        "billing/worker",
        TELLTALE + WORKER,
    )
    tree.service("_shared", "GREETING = 'hello from below'")
    tree.service("packed/parts", "@service\nasync def packed() -> None: ...")
    tree.write("services/packed/__init__.py", 'from services.packed.parts import packed\nprint("imported packed")\n')
    tree.service("broken", "import nosuch")
    tree.service("late/shift/night", "@service(oneshot=True)\nasync def night() -> None:\n    log.info('at night')")
    bare = tree.archive(folders=folders)
    names = "api,billing-worker,late-shift-night"
    listing, version, run, wrong, broken = (
        bare.start("list"),
        bare.start("version"),
        bare.run(SERVICES_ENABLED=names),
        bare.run(SERVICES_ENABLED=names, BILLING_WORKER_PORT="x"),
        bare.run("broken"),
    )
    result = listing.result()
    assert (result.code, result.stderr) == (0, "")
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "api",
        "billing-worker",
        "broken",
        "late-shift-night",
        "packed",
    ]
    assert "Looks after billing/worker" in result.stdout
    assert version.result().stdout == "app 0.1.0 (tree)\n"
    result = run.result()
    assert result.code == 0, result.stderr
    assert result.in_order("billing-worker: hello from below", "api: on")
    assert result.said("late-shift-night: at night")
    told = [line for line in result.lines if line.startswith("imported")]
    assert told == ["imported services.api", "imported services.billing.worker"]
    assert result.stdout == ""
    result = wrong.result()
    assert result.code == 2
    assert result.said(r"BILLING_WORKER_PORT is 'x'; .*app.zip/services/billing/worker.py:\d+")
    result = broken.result()
    assert result.code == 2
    assert result.said("app.zip/services/broken.py:7: service 'broken' cannot be imported: ModuleNotFoundError")


def test_hangs_and_failures_name_their_lines(tree: App) -> None:
    """Inside a zip too."""
    tree.service(
        "hung",
        """
        @service
        async def hung(serving: Serving[None]) -> None:
            async with serving():
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(20)
        """,
    )
    result = tree.archive(folders=False).run(RUNNER_SHUTDOWNTIMEOUT="500ms").stop()
    assert result.code == 3
    assert result.said("could not be cancelled; it is at app.zip/services/hung.py:11 in hung")


def test_knows_its_name_when_installed(tree: App) -> None:
    """Where there is no pyproject.toml, the distribution whose script starts the app tells its name and version."""
    (tree.root / "pyproject.toml").unlink()
    tree.write("my_app-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: my-app\nVersion: 1.2\n")
    tree.write("my_app-1.2.dist-info/entry_points.txt", "[console_scripts]\nmy-app = app.__main__:main\n")
    assert tree.call("version").stdout == "my-app 1.2 (tree)\n"
