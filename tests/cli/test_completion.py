"""What shells are told, from files that are not imported."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cyclopts
import pytest

from kernel.cli.completion import commands_of, offer, with_names
from kernel.plan.discovery import Catalogue, ServiceFile


def file_of(source: bytes | Exception, name: str = "store") -> ServiceFile:
    """The file of a service."""

    def read() -> bytes:
        if isinstance(source, Exception):
            raise source
        return source

    return ServiceFile(name, f"services.{name}", f"services/{name}.py", "services", read)


SOURCE = b'''
"""Store."""
import other

@service
async def store(): ...

@store.command
def put():
    """Put it in.

    Anywhere.
    """

@other.wraps
@store.command
async def take_out_(): ...

@command
def mine(): ...

@store.command("x")
def called(): ...

@store.other
def other(): "Other."

def plain(): "Plain."

class Kept:
    @store.command
    def inner(self): ...

put = 1
'''


def test_the_commands_of_a_service() -> None:
    """Functions that are declared as its commands, with the first lines of their docstrings."""
    assert commands_of(file_of(SOURCE)) == {"put": "Put it in.", "take-out": ""}


@pytest.mark.parametrize("source", [b"def broken(", b"\0", b"\xff", OSError(), ValueError()])
def test_a_file_that_cannot_be_read(source: bytes | Exception) -> None:
    """It has none, and spoils nothing."""
    assert commands_of(file_of(source)) == {}


def test_names_of_services_are_looked_up() -> None:
    """At each TAB, wherever a command takes services, and nowhere else."""

    def run(*service: str, other: str = "x") -> int:
        """Run it.

        Parameters
        ----------
        service
            Names.

        """
        raise AssertionError

    files = Catalogue({"store": file_of(b"'The store.'")})
    made = with_names(run, files)
    parameters = inspect.signature(made).parameters
    assert [*parameters] == ["service", "other"]
    assert parameters["other"].annotation is str
    assert parameters["other"].default == "x"
    assert made.__annotations__ == {name: parameter.annotation for name, parameter in parameters.items()}
    assert made.__doc__ == inspect.getdoc(run)
    (parameter,) = parameters["service"].annotation.__metadata__
    assert parameter.completer(None) == {"store": "The store"}
    files["stock"] = file_of(b"", "stock")
    assert parameter.completer(None) == {"store": "The store", "stock": ""}
    made("anything", other="y")


def test_the_options_that_install_it(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> None:
    """Both say what they are for; one prints the script of a shell, and the other writes it where it belongs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    app = cyclopts.App("tool", result_action="return_value", exit_on_error=False)
    offer(app)
    call: Callable[[list[str]], Any] = app
    call(["--help"])
    text = capsys.readouterr().out
    assert "Install completion for this shell; restart the shell to use it." in " ".join(text.replace("│", "").split())
    assert "--show-completion" in text
    call(["--show-completion", "fish"])
    assert "complete -c tool" in capsys.readouterr().out
    call(["--install-completion", "--shell", "fish"])
    assert (tmp_path / ".config/fish/completions/tool.fish").exists()
