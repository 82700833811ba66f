"""Shell completion, based on the services' files. Imports no service.

cyclopts writes the script for bash, zsh and fish. The names of services are looked up at each TAB, so new services are
found at once. Commands are fixed in the script, so install it again after adding one.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from kernel.plan.discovery import Catalogue, ServiceFile

if TYPE_CHECKING:
    from cyclopts import App

OPTIONS = ("--install-completion", "--show-completion")
ASKED = "__complete"  # the command that the shell's script runs


def offer(app: App) -> None:
    """Add the options to *app* that install and print its completion."""

    def show(shell: Literal["bash", "zsh", "fish"]) -> None:
        """Print the completion script of this shell, for a manual installation."""
        print(app.generate_completion(shell=shell))

    app.register_install_completion_command(
        OPTIONS[0], help="Install completion for this shell; restart the shell to use it."
    )
    app.command(show, name=OPTIONS[1])


def with_names(command: Callable[..., Any], files: Catalogue) -> Callable[..., Any]:
    """Return *command* with completion of service names."""
    signature = inspect.signature(command, eval_str=True)
    named = Annotated[str, Parameter(completer=lambda _: {name: file.summary for name, file in files.items()})]
    parameters = [
        parameter.replace(annotation=named) if parameter.name == "service" else parameter
        for parameter in signature.parameters.values()
    ]

    def run(*_: Any, **__: Any) -> None:
        """Do nothing: only the parameters are used."""

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = inspect.getdoc(command)
    return run


def commands_of(file: ServiceFile) -> Mapping[str, str]:
    """Return a service's commands with their summaries, read from its source."""
    try:
        tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return {}
    return dict(_commands(tree))


def _commands(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(map(_is_command, node.decorator_list)):
            yield node.name.strip("_").replace("_", "-"), (ast.get_docstring(node) or "").partition("\n")[0]


def _is_command(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Attribute) and decorator.attr == "command"
