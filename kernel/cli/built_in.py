"""The built-in commands of every app."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import attrs

from kernel.config.settings import Settings
from kernel.declare.app import EXTENSIONS
from kernel.errors import LeftOutError, PlanError, Problems
from kernel.identity import Identity
from kernel.masking import shown
from kernel.observe import logs
from kernel.plan import discovery
from kernel.stacks import shorten

if TYPE_CHECKING:
    from kernel.observe.wiring import Outside
    from kernel.plan.selection import Plan

BUILT_IN = ("run", "list", "graph", "check", "env", "call", "version")
TAKE_NAMES = ("run", "graph", "check", "env")


@attrs.define(eq=False, slots=False, repr=False)
class BuiltIn:
    """The built-in commands of an app, and what all its commands share."""

    app: ModuleType
    identity: Identity
    settings: Settings
    wrong: tuple[PlanError, ...]
    process: bool  # whether the process exits when this command does

    @functools.cached_property
    def files(self) -> discovery.Catalogue:
        """The services by name, found by their files."""
        found = discovery.find_services(self.identity.root, BUILT_IN)
        return discovery.Catalogue(found, self.identity.stamp.get("left-out", ()))

    def _import(self, name: str) -> None:
        """Import the app's module *name*, if there is one."""
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

    def _user_command(self, name: str, fn: Callable[..., Any]) -> Callable[..., int]:
        """Return a command of the app as the command line calls it; raise `PlanError` if it cannot be called."""
        raise NotImplementedError

    def _import_init(self) -> None:
        if not gc.isenabled():  # the entry point disabled it; from here on the user's settings apply
            gc.freeze()  # the kernel's modules live until the exit, which would take 10 ms to traverse them
            gc.enable()
        self._import("init")
        logs.add_context(self.identity)
        logs.keep_handlers()

    def _run(self, *service: str, with_dependencies: bool = False) -> int:
        """Run the enabled services, or the named ones, until they end or a signal is received.

        Parameters
        ----------
        service
            Names or patterns, instead of SERVICES_ENABLED; "!name" excludes one.
        with_dependencies
            Also run their dependencies; one that "!name" leaves out only if its value is needed.

        """
        from kernel.run.runner import around, connected, execute

        outside = self._outside(serve=True)
        logs.configure(self.settings, self.identity, tuple(self.files))

        gate: Gate | None = None
        if "KERNEL_DEV_GATE" in os.environ:
            from kernel.process.gate import Gate

            gate = Gate(os.environ)

        def prepare() -> tuple[Sequence[Any], Sequence[str]]:
            self._import_init()
            made = self._plan(service, with_dependencies=with_dependencies)
            units = connected(made.units, self.settings, self.identity, outside, export=True)
            if gate is not None:
                gate.wait(self.settings.backend)
            return around(units, EXTENSIONS.lifespans, f"{self.app.__name__}/init.py"), made.warnings

        return execute(self.settings, prepare, outside, to_the_end=self.process, observers=EXTENSIONS.observers)

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
        width = max(map(len, self.files))
        for name, file in self.files.items():
            mark = "enabled " if name in enabled else "left out"
            print(f"{name:<{width}}  {mark}  {file.summary}".rstrip())

    def _graph(self, *service: str, format: Literal["text", "mermaid", "dot", "json"] = "text") -> None:  # noqa: A002
        """Show the dependency graph. Imports the enabled services, or the named ones, and runs none.

        Parameters
        ----------
        service
            Names or patterns, instead of SERVICES_ENABLED.
        format
            text for people, the other formats for programs.

        """
        from kernel.plan import drawing, selection

        patterns, source = self._patterns(service)
        names = selection.select(self.files, patterns, source)
        services, _, errors = selection.load_selected(self.files, names, with_dependencies=False)
        misfits, _ = selection.registry_of(services, self.files).check()
        Problems.raise_any([*errors, *(error for error in misfits if not isinstance(error, LeftOutError))])
        print(drawing.draw(services, format))

    def _env(self, *service: str, format: Literal["table", "json", "dotenv"] = "table") -> None:  # noqa: A002
        """List every variable: type, default, current value and where it comes from. Secrets are masked.

        Parameters
        ----------
        service
            Names or patterns, instead of SERVICES_ENABLED.
        format
            table for people, json for programs, dotenv for a `.env.example`.

        """
        from kernel.plan import environment, selection
        from kernel.plan.environment_formats import FORMATS

        names = selection.select(self.files, *self._patterns(service))
        services, _, errors = selection.load_selected(self.files, names, with_dependencies=False)
        around = environment.Surroundings.of(os.environ, self.identity.root)
        print(FORMATS[format](environment.variables_of(services, around), self.identity.name))
        if missing := around.not_loaded:
            hint = "recipes such as `just env` load it"
            logs.logger.warning(".env is not loaded: it contains %s, which is not set; %s", ", ".join(missing), hint)
        misfits, _ = selection.registry_of(services, self.files).check()
        misfits = [error for error in misfits if not isinstance(error, LeftOutError)]
        Problems.raise_any([*errors, *misfits, *environment.unreadable(services)])

    def _check(self, *service: str, settings: bool = True) -> int:
        """Import all services, or the named ones, and report every problem; exit code 2 if there is any.

        Parameters
        ----------
        service
            Names or patterns: check only these, as if nothing else were enabled.
        settings
            Also check the values in the environment, which may be missing in a test, for example.

        """
        from kernel.plan.check import check
        from kernel.plan.selection import select

        names = select(self.files, service, "command line") if service else ()
        errors = [*(self.wrong if settings else ()), *self._check_own()]
        patterns, deadline = self._patterns(()), self.settings.shutdown_timeout
        findings = check(self.files, os.environ, patterns, deadline, errors, names=names, settings=settings)
        for warning in findings.warnings:
            print(f"warning: {shown(warning)}")
        Problems.raise_any(findings.errors)
        count, warnings = len(names or self.files), len(findings.warnings)
        print(
            f"{count} service{'s' * (count != 1)} checked, no problems"
            + (f", {warnings} warning{'s' * (warnings != 1)}" if warnings else "")
            + (f"; {findings.apart}" if findings.apart else "")
        )
        return 0

    def _check_own(self) -> list[PlanError]:
        errors: list[PlanError] = []
        for step in (self._import_init, self._user_commands):
            try:
                step()
            except PlanError as error:
                errors.append(error)
        for name, fn in EXTENSIONS.commands.items():
            try:
                self._user_command(name, fn)
            except PlanError as error:
                errors.append(error)
        return errors

    def _call(self, method: str, arguments: str = "{}", *, timeout: float = 10.0) -> int:
        """Call a method of a service in another process, and print the result as JSON. Needs NATS_URL.

        Parameters
        ----------
        method
            The service and the method: users.get
        arguments
            A JSON object of the arguments: '{"id": 1}'
        timeout
            Seconds to wait for the result.

        """
        from kernel.calls.command import call

        Problems.raise_any(self.wrong)
        return call(self.settings.nats, self.identity.name, method, arguments, timeout)

    def _version(self) -> None:
        """Show the app's name, version and commit, and how it was built."""
        print(f"{self.identity.name} {self.identity.version} ({self.identity.origin})")
