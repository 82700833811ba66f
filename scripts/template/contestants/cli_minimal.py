"""The minimum for a command line: a cyclopts program with the same commands, which knows all its services in advance.

The variable SERVICES sets their number.
"""

import os
from typing import Literal

import anyio.lowlevel
from cyclopts import App

NAMES = ["greeter", *(f"service-{place}" for place in range(1, int(os.environ.get("SERVICES", "1"))))]


async def hello() -> None:
    """Do nothing."""


app = App("app", help="Services in one process. SERVICES_ENABLED chooses which.", version_flags=())


@app.command
async def run(*service: str, with_dependencies: bool = False) -> None:  # noqa: ARG001  (--help shows them)
    """Run the enabled services, or the named ones, until they end or a signal is received.

    Parameters
    ----------
    service
        Names or patterns, instead of SERVICES_ENABLED; "!name" excludes one.
    with_dependencies
        Also run their dependencies.

    """
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hello)


@app.command(name="list")
def list_services() -> None:
    """List all services, and which of them are enabled."""
    for name in NAMES:
        print(f"{name:<{max(map(len, NAMES))}}  enabled   Looks after {name}")


@app.command
def graph(*service: str, format: Literal["text", "mermaid", "dot", "json"] = "text") -> None:  # noqa: A002
    """Show the dependency graph. Imports the enabled services, or the named ones, and runs none.

    Parameters
    ----------
    service
        Names or patterns, instead of SERVICES_ENABLED.
    format
        text for people, the other formats for programs.

    """


@app.command
def check(*service: str) -> None:
    """Import all services, or the named ones, and report every problem; exit code 2 if there is any."""


@app.command
def env(*service: str, format: Literal["table", "json", "dotenv"] = "table") -> None:  # noqa: A002
    """List every variable: type, default, current value and where it comes from. Secrets are masked."""


@app.command
def call(method: str, arguments: str = "{}") -> None:
    """Call a method of a service in another process, and print the result as JSON. Needs NATS_URL."""


@app.command(name="--install-completion")
def install_completion() -> None:
    """Install completion for this shell."""


@app.command
def version() -> None:
    """Show the app's name, version and commit, and how it was built."""


for name in NAMES:
    app.command(App(name, help=f"Looks after {name}", group="Services", version_flags=()))


@app["greeter"].command
async def status() -> None:
    """Show its status."""
    await anyio.lowlevel.checkpoint()
    print("well")


app()
