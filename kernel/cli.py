"""The command line, by cyclopts. What the first word names is all that is imported.

`app --help` reads the names of the services from their files; `app X ...` imports X, and what X's command asks for.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import attrs

from kernel.config.settings import Settings, read_settings
from kernel.declare.app import EXTENSIONS
from kernel.declare.service import Service, command_needs
from kernel.declare.signature import Needs, evaluate, signature_of
from kernel.errors import LeftOutError, NamingError, NotImportable, PlanError, Problems, did_you_mean, one_line
from kernel.identity import Identity, identify
from kernel.masking import learn, shown
from kernel.observe import console, logs
from kernel.plan import discovery
from kernel.stacks import shorten

if TYPE_CHECKING:
    from cyclopts import App

    from kernel.observe.wiring import Outside
    from kernel.plan.selection import Plan

FAILED, USAGE = 1, 2  # exit codes: what was asked for failed, nothing was started
CANNOT_PRINT = frozenset({errno.ENOSPC, errno.EIO, errno.EBADF})  # the disk is full, the terminal gone, stdout closed
BUILT_IN = ("run", "list", "graph", "check", "version")
TAKE_NAMES = ("run", "graph")


def main(app: ModuleType, argv: Sequence[str] | None = None) -> int:
    """Run the command line of the app whose package is *app*, and give the exit code.

    Args:
        app: The package that holds `init.py` and `commands.py`, beside `services`.
        argv: The words after the program's name; None takes them from the process.

    """
    learn(os.environ)
    identity = identify(app)
    if identity.root not in sys.path:
        sys.path.insert(0, identity.root)
    words = list(sys.argv[1:] if argv is None else argv)
    settings, wrong = read_settings(os.environ)
    logs.configure(settings, identity)
    program = Program(app, identity, settings, tuple(wrong), process=argv is None)
    lost = ""
    try:
        code = program.dispatch(words)
    except PlanError as error:
        report_problems(error, settings)
        code = USAGE
    except BrokenPipeError:  # `app list | head`
        code = 0
    except OSError as error:
        if error.errno not in CANNOT_PRINT:
            raise
        code, lost = FAILED, error.strerror or str(error)
    logs.flush()
    lost = console.close() or lost
    if lost and words[:1] != ["run"]:  # what a run prints is not what it is there for
        console.say(f"error: cannot write to stdout: {lost}")
        code = code or FAILED
    return code


def report_problems(error: PlanError, settings: Settings) -> None:
    """Say what is wrong: a line for each problem, or a record where the logs are JSON."""
    problems = error.errors if isinstance(error, Problems) else (error,)
    for note in getattr(error, "__notes__", ()):
        if settings.log_json:
            logs.logger.warning(note)
        else:
            console.say(f"warning: {note}")
    for problem in problems:
        if settings.log_json:
            logs.logger.error(str(problem), extra={"exit_code": USAGE})
        else:
            console.say(f"error: {problem}")
            cause = problem.__cause__
            if isinstance(problem, NotImportable) and cause is not None and cause.__cause__ is not None:
                console.say(f"  caused by {one_line(cause.__cause__)}")
    if not settings.log_json:
        count = f"{len(problems)} problems; " if len(problems) > 1 else ""
        console.say(f"{count}nothing was started")


@attrs.define(eq=False, slots=False)
class Program:
    """The commands of one app."""

    app: ModuleType
    identity: Identity
    settings: Settings
    wrong: tuple[PlanError, ...]
    process: bool  # whether it is what the process is there for, and the end of the one is that of the other

    @functools.cached_property
    def files(self) -> discovery.Catalogue:
        """The services by name, as their files tell."""
        found = discovery.find_services(self.identity.root, BUILT_IN)
        return discovery.Catalogue(found, self.identity.stamp.get("left-out", ()))

    def dispatch(self, words: list[str]) -> int:
        """Do what *words* say."""
        first = words[0] if words else "--help"
        if first in BUILT_IN:
            names = words[1:]
            if not names or (first in TAKE_NAMES and not any(name.startswith("-") for name in names)):
                # There is nothing to parse, and cyclopts takes 30 ms to load: a sixth of a hello world.
                return _code(getattr(self, f"_{first}")(*names))
            return self._call(self._built_in(first), words)
        if first == "--version":
            return self._call(self._built_in("version"), ["version"])
        if first in self.files:
            return self._call(self._service_app(first), words)
        commands = self._user_commands()
        if first.startswith("-"):
            app = self._built_in()
            self._add(app, commands)
            self._list_services(app)
            return self._call(app, words or ["--help"])
        if first in commands:
            app = self._root()
            self._add(app, commands)
            return self._call(app, words)
        known = [*BUILT_IN, *self.files, *commands]
        hint = did_you_mean(first.replace("_", "-"), known) or f"see `{self.identity.name} --help`"
        raise NamingError(f"there is no command or service named {first!r}", hint=hint)

    # -- the pieces of the command line --------------------------------------------------------------------------

    def _new(self, name: str, text: str = "", group: str | None = None) -> App:
        from cyclopts import App

        return App(
            name,
            help=text,
            help_format="plaintext",  # to render Markdown costs 30 ms
            group=group,
            version_flags=(),
            result_action="return_value",
            exit_on_error=False,
        )

    def _call(self, app: App, words: Sequence[str]) -> int:
        from cyclopts import CycloptsError

        try:
            return _code(app(list(words)))
        except CycloptsError:
            return USAGE
        except (OSError, SystemExit) as error:  # rich makes a SystemExit of a closed pipe
            if _came_from(error, CycloptsError):
                return USAGE  # and that could not be printed
            if isinstance(error, SystemExit) and _came_from(error, BrokenPipeError):
                return 0
            raise

    def _root(self) -> App:
        return self._new(self.identity.name, "Services in one process. SERVICES_ENABLED chooses which.")

    def _built_in(self, *names: str) -> App:
        """The app's own commands, all or those of these *names*: each takes half a millisecond."""
        app = self._root()
        for name in names or BUILT_IN:
            app.command(getattr(self, f"_{name}"), name=name)
        return app

    def _add(self, app: App, commands: Mapping[str, Callable[..., Any]]) -> None:
        for name, fn in commands.items():
            if name in BUILT_IN or name in self.files:
                taken = "a command" if name in BUILT_IN else "a service"
                raise NamingError(f"app/commands.py defines {name!r}, but {taken} has that name", hint="rename it")
            app.command(self._with_environment(fn), name=name, group="Commands of this app")

    def _list_services(self, app: App) -> None:
        for name, file in self.files.items():
            app.command(self._new(name, file.summary, group="Services"))

    def _import(self, name: str) -> None:
        """Import the app's own module of this *name*, if there is one."""
        import importlib

        module = f"{self.app.__name__}.{name}"
        try:
            importlib.import_module(module)
        except PlanError:
            raise
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == module:
                return
            path = shorten(os.path.join(self.identity.root, *module.split(".")) + ".py")  # noqa: PTH118
            raise discovery.not_importable("", module, path, error) from error

    def _user_commands(self) -> dict[str, Callable[..., Any]]:
        self._import("commands")
        return EXTENSIONS.commands

    def _import_init(self) -> None:
        self._import("init")
        logs.add_context(self.identity)
        logs.keep_handlers()

    # -- the built-in commands -----------------------------------------------------------------------------------

    def _run(self, *service: str, with_dependencies: bool = False) -> int:
        """Run the enabled services, or those named, until they end or a signal comes.

        Parameters
        ----------
        service
            Names or patterns, instead of SERVICES_ENABLED; "!name" leaves one out.
        with_dependencies
            Run what they need as well.

        """
        from kernel.run.runner import around, connected, execute

        outside = self._outside(serve=True)
        logs.configure(self.settings, self.identity, tuple(self.files))

        def prepare() -> tuple[Sequence[Any], Sequence[str]]:
            self._import_init()
            made = self._plan(service, with_dependencies=with_dependencies)
            units = connected(made.units, self.settings, self.identity, outside, export=True)
            return around(units, EXTENSIONS.lifespans, f"{self.app.__name__}/init.py"), made.warnings

        return execute(self.settings, prepare, outside, to_the_end=self.process)

    def _outside(self, *, serve: bool) -> Outside:
        from kernel.observe.wiring import Outside

        return Outside(self.settings, self.identity, serve=serve)

    def _plan(self, service: Sequence[str], *, with_dependencies: bool = False) -> Plan:
        from kernel.plan.selection import make_plan

        patterns, source = self._patterns(service)
        return make_plan(
            self.files,
            os.environ,
            patterns,
            source,
            with_dependencies=with_dependencies,
            errors=self.wrong,
        )

    def _patterns(self, service: Sequence[str]) -> tuple[Sequence[str] | None, str]:
        return (service, "command line") if service else (self.settings.enabled, "SERVICES_ENABLED")

    def _list(self) -> None:
        """List all services, and which of them are enabled."""
        from kernel.plan.selection import select

        patterns, source = self._patterns(())
        enabled = set(select(self.files, patterns, source))
        width = max((len(name) for name in self.files), default=0)
        for name, file in self.files.items():
            mark = "enabled " if name in enabled else "left out"
            print(f"{name:<{width}}  {mark}  {file.summary}".rstrip())

    def _graph(self, *service: str, format: Literal["text", "mermaid", "dot", "json"] = "text") -> None:  # noqa: A002
        """Show what depends on what. Imports the enabled services, or those named, and runs none.

        Parameters
        ----------
        service
            Names or patterns, instead of SERVICES_ENABLED.
        format
            text for people, the others for programs.

        """
        from kernel.plan import drawing, selection

        patterns, source = self._patterns(service)
        names = selection.select(self.files, patterns, source)
        services, errors = selection.load_selected(self.files, names, with_dependencies=False)
        misfits, _ = selection.registry_of(services, self.files).check()
        Problems.raise_any([*errors, *(error for error in misfits if not isinstance(error, LeftOutError))])
        print(drawing.draw(services, format))

    def _check(self) -> int:
        """Import everything, and say all that is wrong; 2 where anything is."""
        from kernel.plan.check import check

        findings = check(self.files, os.environ, self._patterns(()), self.settings.shutdown_timeout, self._check_own())
        for warning in findings.warnings:
            print(f"warning: {shown(warning)}")
        Problems.raise_any([*self.wrong, *findings.errors])
        print(
            f"{len(self.files)} services checked, no problems"
            + (f", {len(findings.warnings)} warnings" if findings.warnings else "")
        )
        return 0

    def _check_own(self) -> list[PlanError]:
        errors: list[PlanError] = []
        for step in (self._import_init, lambda: self._add(self._new("check"), self._user_commands())):
            try:
                step()
            except PlanError as error:
                errors.append(error)
        return errors

    def _version(self) -> None:
        """Show the app's name, version and commit, and how it was built."""
        print(f"{self.identity.name} {self.identity.version} ({self.identity.origin})")

    # -- the commands of a service -------------------------------------------------------------------------------

    def _service_app(self, name: str) -> App:
        service = discovery.load(self.files[name])
        app = self._root()
        sub = self._new(name, self.files[name].summary or inspect.getdoc(service) or "")
        for command_name, fn in service.commands.items():
            needs = command_needs(service, fn)
            asks = needs.edges or needs.config
            call = functools.partial(self._call_command, service, command_name, fn, needs)
            sub.command(_for_command_line(fn, needs, call) if asks else self._with_environment(fn), name=command_name)
        app.command(sub)
        return app

    def _with_environment(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """A command that asks for no value, which starts no kernel."""
        return _for_command_line(fn, Needs(), lambda values: self._run_alone(functools.partial(fn, **values)))

    def _run_alone(self, call: Callable[[], Any]) -> int:
        from kernel.run.standalone import run_alone

        with self._exporting():
            self._import_init()
            Problems.raise_any(self.wrong)
            return run_alone(call, self.settings)

    @contextlib.contextmanager
    def _exporting(self) -> Iterator[None]:
        """Export what is made within, where anything is exported; else what that takes is not imported."""
        if not self.settings.otel:
            yield
            return
        outside = self._outside(serve=False)
        outside.start()
        try:
            yield
        finally:
            if unsent := outside.close():
                logs.logger.warning("not sent: %s", unsent)

    def _call_command(
        self, service: Service[..., Any], name: str, fn: Callable[..., Any], needs: Needs, given: dict[str, Any]
    ) -> int:
        from kernel.plan.selection import plan_command

        if "LOG_LEVEL" not in os.environ:
            logs.logger.setLevel("WARNING")  # a command's output is what it prints
        if needs.edges:
            from kernel.run.runner import command_unit, connected, execute

            outside = self._outside(serve=False)

            def prepare() -> tuple[Sequence[Any], Sequence[str]]:
                self._import_init()
                made, config = plan_command(service, needs, self.files, os.environ, self.wrong)
                call = functools.partial(fn, **given, **_config(needs, config))
                units = [*made.units, command_unit(f"{service.name} {name}", needs, call)]
                return connected(units, self.settings, self.identity, outside, export=False), ()

            return execute(self.settings, prepare, outside, to_the_end=self.process)
        _, config = plan_command(service, needs, self.files, os.environ, self.wrong)
        return self._run_alone(functools.partial(fn, **given, **_config(needs, config)))


def _came_from(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether *error* was raised while one of that *kind* was dealt with."""
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None


def _code(result: object) -> int:
    """The exit code that a command's *result* stands for."""
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _config(needs: Needs, config: object) -> dict[str, object]:
    return {needs.config[0]: config} if needs.config else {}


def _for_command_line(
    fn: Callable[..., Any], needs: Needs, call: Callable[[dict[str, Any]], int]
) -> Callable[..., int]:
    """A function with those parameters of *fn* that are the command line's, which hands them to *call*."""
    owner = f"command {fn.__name__!r}"
    kept = inspect.Signature(
        [
            one.replace(annotation=evaluate(one, fn, owner, spare=False))
            for one in signature_of(fn).parameters.values()
            if one.name not in needs.parameters
        ]
    )

    def run(*args: Any, **kwargs: Any) -> int:
        bound = kept.bind(*args, **kwargs)
        return call(dict(bound.arguments))

    given = kept.parameters.values()
    run.__signature__ = kept  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in given if one.annotation is not one.empty}
    run.__doc__ = inspect.getdoc(fn)
    run.__name__ = fn.__name__
    run.__module__ = fn.__module__
    return run
