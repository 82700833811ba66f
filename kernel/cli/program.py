"""Find and run the command that the command line names: one of a service or of the app."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from kernel.cli.built_in import BUILT_IN, TAKE_NAMES, BuiltIn
from kernel.cli.problems import USAGE
from kernel.declare.service import Service, command_needs
from kernel.declare.signature import Needs, to_parameter
from kernel.errors import NamingError, PlanError, Problems, chain, did_you_mean
from kernel.observe import console, logs
from kernel.plan import discovery

if TYPE_CHECKING:
    from cyclopts import App

COMPLETION = ("--install-completion", "--show-completion", "__complete")


@attrs.define(eq=False, slots=False, repr=False)
class Program(BuiltIn):
    """The command line of one app."""

    def dispatch(self, words: list[str]) -> int:
        """Run the command that *words* name, and return the exit code."""
        if any(word.endswith(".py") for word in words[:2]):
            words = [*map(self._by_file, words[:2]), *words[2:]]
        first = words[0] if words else "--help"
        if first in BUILT_IN:
            names = words[1:]
            if not names or (first in TAKE_NAMES and not any(name.startswith("-") for name in names)):
                # There is nothing to parse, and loading cyclopts takes 30 ms, a sixth of a hello world.
                return _code(getattr(self, f"_{first}")(*names))
            return self._parse(self._built_in(first), words)
        if first == "--version":
            return self._parse(self._built_in("version"), ["version"])
        if first in self.files:
            return self._parse(self._service_app(first, words[1:]), words)
        if first in COMPLETION or first.startswith("-"):
            return self._parse(self._completed(), words) if first in COMPLETION else self._help(words)
        commands = self._user_commands()
        if first in commands:
            app = self._root()
            app.command(self._user_command(first, commands[first]), name=first)
            return self._parse(app, words)
        known = [*BUILT_IN, *self.files, *commands]
        hint = did_you_mean(first.replace("_", "-"), known) or f"see `{self.identity.name} --help`"
        raise NamingError(f"there is no command or service named {first!r}", hint=hint)

    def _by_file(self, word: str) -> str:
        """Return the service in the file *word*, a path as editors pass it; otherwise *word* itself."""
        if word.endswith(".py"):
            path = os.path.realpath(word)
            for name, file in self.files.items():
                if os.path.realpath(file.path) == path:
                    return name
        return word

    # -- the pieces of the command line --------------------------------------------------------------------------

    def _new(self, name: str, text: str = "", group: str | None = None) -> App:
        from cyclopts import App

        return App(
            name,
            help=text,
            help_format="plaintext",  # rendering Markdown takes 30 ms
            group=group,
            version_flags=(),
            result_action="return_value",
            exit_on_error=False,
        )

    def _parse(self, app: App, words: Sequence[str]) -> int:
        from cyclopts import CycloptsError

        try:
            return _code(app(list(words)))
        except CycloptsError:
            return USAGE
        except (OSError, SystemExit) as error:  # rich turns a closed pipe into a SystemExit
            if _came_from(error, CycloptsError):
                return USAGE  # the message could not be printed
            if isinstance(error, SystemExit) and _came_from(error, BrokenPipeError):
                return 0
            raise

    def _root(self) -> App:
        return self._new(self.identity.name, "Services in one process. SERVICES_ENABLED chooses which.")

    def _built_in(self, *names: str) -> App:
        """Add the built-in commands, all or only *names*; each takes 0.5 ms."""
        app = self._root()
        for name in names or BUILT_IN:
            app.command(getattr(self, f"_{name}"), name=name)
        return app

    def _help(self, words: Sequence[str]) -> int:
        """Print the help. If anything is broken, warn and show the rest."""
        app = self._built_in()
        problems: list[PlanError] = []
        try:
            commands = self._user_commands()
        except PlanError as error:
            commands = {}
            problems.append(error)
        for name, fn in commands.items():
            try:
                self._refuse_taken(name)
            except PlanError as error:
                problems.append(error)
            else:
                app.command(self._new(name, _summary(fn), group="Commands of this app"))
        self._list_services(app)
        app.register_install_completion_command("--install-completion", help="Install completion for this shell.")
        code = self._parse(app, words or ["--help"])
        for problem in problems:
            console.say(f"warning: {problem}", logging.WARNING)
        return code

    def _completed(self) -> App:
        """Return an app with everything that can be completed, and the options to install completion."""
        from kernel.cli import completion

        app = self._root()
        for name in BUILT_IN:
            app.command(completion.with_names(getattr(self, f"_{name}"), self.files), name=name)
        with contextlib.suppress(PlanError):  # completion works once the problem is fixed
            for name, fn in self._user_commands().items():
                with contextlib.suppress(PlanError):
                    app.command(self._user_command(name, fn), name=name)
        for name, file in self.files.items():
            service = self._new(name, file.summary)
            for command, summary in completion.commands_of(file).items():
                service.command(self._new(command, summary))
            app.command(service)
        completion.offer(app)
        return app

    def _refuse_taken(self, name: str) -> None:
        if name in BUILT_IN or name in self.files:
            taken = "a command" if name in BUILT_IN else "a service"
            raise NamingError(f"app/commands.py defines {name!r}, but {taken} has that name", hint="rename it")

    def _user_command(self, name: str, fn: Callable[..., Any]) -> Callable[..., int]:
        """Return a command of the app as the command line calls it.

        Raises:
            PlanError: The name is taken, or the signature is wrong.

        """
        from kernel.run.command import refuse_values

        self._refuse_taken(name)
        refuse_values(fn, {to_parameter(service): service for service in self.files})
        return self._with_environment(fn)

    def _list_services(self, app: App) -> None:
        for name, file in self.files.items():
            app.command(self._new(name, file.summary, group="Services"))

    # -- the commands of a service -------------------------------------------------------------------------------

    def _service_app(self, name: str, words: Sequence[str]) -> App:
        """Return the commands of a service. Inspect only the command that *words* name, since others may be broken."""
        service = discovery.load(self.files[name])
        app = self._root()
        sub = self._new(name, self.files[name].summary or inspect.getdoc(service) or "")
        for command_name, fn in service.commands.items():
            if command_name in words[:1]:
                sub.command(self._service_command(service, command_name, fn), name=command_name)
            else:
                sub.command(self._new(command_name, _summary(fn)))
        app.command(sub)
        return app

    def _service_command(self, service: Service[..., Any], name: str, fn: Callable[..., Any]) -> Callable[..., int]:
        from kernel.run.command import for_command_line

        needs = command_needs(service, fn)
        if not needs.edges and not needs.config:
            return self._with_environment(fn)
        return for_command_line(fn, needs, functools.partial(self._call_command, service, name, fn, needs))

    def _with_environment(self, fn: Callable[..., Any]) -> Callable[..., int]:
        """Return a command that takes no value, which runs without services."""
        from kernel.run.command import call_with, for_command_line

        return for_command_line(fn, Needs(), lambda values: self._run_alone(functools.partial(call_with, fn, values)))

    def _run_alone(self, call: Callable[[], Any]) -> int:
        from kernel.run.standalone import run_alone

        with self._exporting():
            self._import_init()
            Problems.raise_any(self.wrong)
            return run_alone(call, self.settings)

    @contextlib.contextmanager
    def _exporting(self) -> Generator[None]:
        """Export the telemetry of the block if exporting is enabled; otherwise import nothing for it."""
        if not self.settings.otel:
            yield
            return
        with self._outside(serve=False) as outside:
            try:
                yield
            finally:
                if unsent := outside.close():
                    logs.logger.warning("not sent: %s", unsent)

    def _call_command(
        self, service: Service[..., Any], name: str, fn: Callable[..., Any], needs: Needs, given: dict[str, Any]
    ) -> int:
        from kernel.plan.selection import plan_command
        from kernel.run.command import Outcome, call_with

        if "LOG_LEVEL" not in os.environ:
            logs.logger.setLevel("WARNING")  # a command's output should not be mixed with logs
        ways: Any = {"enabled": self.settings.enabled, "errors": self.wrong}
        if needs.edges:
            from kernel.run.runner import command_unit, connected, execute, provider_unit

            outcome = Outcome()
            outside = self._outside(serve=False)

            def prepare() -> tuple[Sequence[Any], Sequence[str]]:
                self._import_init()
                made, config = plan_command(service, needs, self.files, os.environ, **ways)
                known = {**given, **_config(needs, config)}
                unit = command_unit(
                    f"{service.name} {name}", needs, lambda **values: call_with(fn, {**known, **values}), outcome
                )
                units = [*map(provider_unit, made.units), unit]
                return connected(units, self.settings, self.identity, outside, export=False), ()

            return execute(self.settings, prepare, outside, to_the_end=self.process, outcome=outcome)
        _, config = plan_command(service, needs, self.files, os.environ, **ways)
        return self._run_alone(functools.partial(call_with, fn, {**given, **_config(needs, config)}))


def _came_from(error: BaseException, kind: type[BaseException]) -> bool:
    """Return whether *error* was raised while an exception of *kind* was being handled."""
    return any(isinstance(before, kind) for before in chain(error, "__context__"))


def _code(result: object) -> int:
    """Return the exit code for a command's *result*."""
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _summary(fn: Callable[..., Any]) -> str:
    """Return the first line of the function's docstring."""
    return (inspect.getdoc(fn) or "").partition("\n")[0]


def _config(needs: Needs, config: object) -> dict[str, object]:
    return {needs.config[0]: config} if needs.config else {}
