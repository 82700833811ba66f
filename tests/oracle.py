"""Judges the log of a run by the contract alone: it shares nothing with the kernel but its table of moves.

`Oracle` goes through the log once. At each entry it checks what must hold at that moment; between two moments, when
everything that could happen at the first of them has happened, what should have happened by then. Times are virtual,
so "at once" means at the very same time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import attrs

from kernel.errors import StartTimeout, StopTimeout, Uncancellable, ValueLost
from kernel.lifecycle.events import MOVES, AllReady, Forced, State, StopBegan, Transition
from tests.generated import App, Fake, Fault, Mark, Stage

A_MOMENT = 1e-6  # what rounding may add to a time
RUNNING = {State.STARTING, State.READY, State.STOPPING}
WORKING = {State.STARTING, State.READY}
HALTED = {State.WAITING, State.BACKOFF}
BROKEN = {State.FAILED, State.ABANDONED}
ENDED = {state for state, moves in MOVES.items() if not moves}


def leaves(error: BaseException) -> list[BaseException]:
    """What is in *error*, where it is a group."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for one in error.exceptions for leaf in leaves(one)]


@attrs.define
class Life:
    """What the log has told of one service so far."""

    fake: Fake
    state: State = State.WAITING
    since: float = 0.0
    attempts: int = 0
    runs: int = 0  # attempts that came as far as the function
    backoffs: int = 0  # in a row
    ready_for: float | None = None  # seconds, in this attempt
    uptime: float = 0.0
    begun: Mark | None = None  # the mark of the run that is still there
    faulty: bool = False  # whether this attempt may end by itself
    left: bool = False  # whether it left its work by itself
    crashed: bool = False  # whether its work crashed
    must_stop: float | None = None  # since when a dependency it uses is stopping
    grace: float | None = None  # until when it has to serve, having been asked to stop while starting
    asked: float | None = None  # when it was asked to stop, in the shutdown
    closing: float | None = None  # since when it closes after its own end, held by nobody


@attrs.define(eq=False)
class Shutdown:
    """What the log has told of the stop so far."""

    began: float
    deadline: float
    services: float  # from when on services are asked to stop
    forced: bool = False
    levels: dict[str, int] | None = None
    share: float = 0.0


@attrs.define(eq=False)
class Oracle:
    """Reads the log of *stage* from its begin to its end, and complains by an `AssertionError`."""

    stage: Stage
    now: float = 0.0
    lives: dict[str, Life] = attrs.field(factory=dict)
    shutdown: Shutdown | None = None
    all_ready: bool = False
    first: str | None = None  # the failure that the report must name

    @property
    def app(self) -> App:
        return self.stage.app

    def judge(self) -> None:
        self.lives = {fake.name: Life(fake) for fake in self.app.fakes}
        for now, entry in self.stage.log:
            if now > self.now + A_MOMENT:
                self.between(now)
            self.now = now
            self.take_levels()
            if isinstance(entry, Mark):
                self.mark(entry, self.lives[entry.service])
            elif isinstance(entry, Transition):
                self.move(entry, self.lives[entry.service])
            elif isinstance(entry, StopBegan):
                self.stop(entry)
            elif isinstance(entry, Forced):
                self.force()
            elif isinstance(entry, AllReady):
                self.ready(entry)
        self.end()

    # -- the graph -----------------------------------------------------------------------------------------------

    @functools.cached_property
    def dependents(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {fake.name: [] for fake in self.app.fakes}
        for fake in self.app.fakes:
            for name in fake.above:
                found[name].append(fake.name)
        return found

    def available(self, name: str) -> bool:
        """Whether *name* is ready, and holds no value that is going, which would soon stop it too."""
        life = self.lives[name]
        return life.state is State.READY and all(self.available(provider) for provider, _ in self.held(life))

    def satisfied(self, fake: Fake) -> bool:
        """Whether nothing keeps *fake* from starting."""
        return all(self.available(name) or self.lives[name].state in ENDED for name in fake.waits_for) and all(
            self.lives[name].attempts or self.lives[name].state in ENDED for name in fake.launches
        )

    def held(self, life: Life) -> tuple[tuple[str, int], ...]:
        """The providers whose values it holds, with the attempts that gave them."""
        return life.begun.holds if life.begun else ()

    def consumers(self, provider: str) -> Iterator[Life]:
        """Those that run now with the value that *provider* gave in its present attempt."""
        begun = self.lives[provider].begun
        held = (provider, begun.attempt if begun else 0)
        return (life for name in self.dependents[provider] if held in self.held(life := self.lives[name]))

    def outermost_consumers(self, provider: str) -> set[str]:
        """Those that hold the value of *provider*, directly or not, and whose own value nobody holds."""
        names = [life.fake.name for life in self.consumers(provider)]
        return {outer for name in names for outer in self.outermost_consumers(name) or {name}}

    def running_dependents(self, name: str) -> list[str]:
        return [one for one in self.dependents[name] if self.lives[one].state in RUNNING]

    # -- moves ---------------------------------------------------------------------------------------------------

    def move(self, event: Transition, life: Life) -> None:
        name, previous = event.service, event.previous
        assert previous is life.state, f"{event} does not begin where it was"
        assert event.state in MOVES[previous], f"{event} is not a legal move"
        assert abs(event.seconds - (self.now - life.since)) < A_MOMENT, f"{event} counts its seconds wrong"
        if previous is State.READY:
            life.ready_for = self.now - life.since
            life.uptime += life.ready_for
        if previous is State.BACKOFF and event.state in {State.STARTING, State.WAITING}:
            took, expected = self.now - life.since, self.backoff(life)
            assert abs(took - expected) < A_MOMENT, f"the backoff of {name} took {took}, not {expected}"
        if event.state in RUNNING:
            assert event.attempt == life.attempts + (event.state is State.STARTING), f"{event} counts wrong"
        life.state, life.since = event.state, self.now
        if event.state is State.STARTING:
            self.starts(life)
        elif event.state is State.STOPPING:
            self.stops(event, life)
        elif event.state is State.BACKOFF:
            self.check_error(event.error, life)
            self.backs_off(life)
        elif event.state in BROKEN:
            self.breaks(event, life)
        if event.state not in RUNNING:
            life.must_stop = life.grace = life.asked = life.closing = None
            for provider in life.fake.above:
                self.maybe_closing(self.lives[provider])

    def starts(self, life: Life) -> None:
        fake = life.fake
        assert self.shutdown is None, f"{fake.name} was launched after the stop began"
        assert self.satisfied(fake), f"{fake.name} started before its dependencies were there"
        for name in fake.values:
            assert self.available(name), f"{fake.name} started without the value of {name}"
        assert life.begun is None, f"{fake.name} runs twice"
        life.attempts += 1
        life.left = life.crashed = False
        life.ready_for = None
        life.faulty = fake.fault != "none" or fake.bad_clean_up

    def stops(self, event: Transition, life: Life) -> None:
        """It leaves ready, or is stopped while starting."""
        name, previous, life.must_stop = event.service, event.previous, None
        if previous is State.STARTING:
            timeout = life.fake.start_timeout
            timed_out = timeout is not None and abs(event.seconds - timeout) < A_MOMENT
            if life.fake.style == "serving" and not timed_out:
                life.grace = self.now
        if self.shutdown is None:
            if previous is State.READY:
                self.leaves(life)
            return
        if self.now < self.shutdown.services - A_MOMENT:
            return  # until the delay is over, a consumer whose value goes is still stopped as it always is
        if previous is State.READY and self.was_asked(life):
            alive = self.running_dependents(name)
            assert not alive, f"{name} was asked to stop while {alive} still ran"
            life.asked = self.now

    def leaves(self, life: Life) -> None:
        """It leaves ready while the app runs."""
        name = life.fake.name
        for outer in self.outermost_consumers(name):
            if self.lives[outer].state in WORKING:
                self.lives[outer].must_stop = self.now
        if life.fake.style == "serving" and not life.faulty:
            going = [provider for provider, _ in self.held(life) if not self.available(provider)]
            assert going, f"{name} was stopped for nothing"
            held = [one.fake.name for one in self.consumers(name) if one.state in RUNNING]
            assert not held, f"{name} was asked to stop while {held} still held its value"

    def was_asked(self, life: Life) -> bool:
        """Whether it can only be the kernel that ended its work, in the course of the stop."""
        assert self.shutdown is not None
        if self.shutdown.forced or life.left or life.faulty or life.fake.style != "serving":
            return False
        # At the end of the delay, both reasons come together.
        delayed = self.shutdown.services > self.shutdown.began and self.now <= self.shutdown.services
        return not delayed or all(self.lives[provider].state is State.READY for provider, _ in self.held(life))

    def backs_off(self, life: Life) -> None:
        assert self.shutdown is None, f"{life.fake.name} wants to be retried after the stop began"
        assert not self.spent(life), f"{life.fake.name} was retried too often"
        life.backoffs += 1

    def spent(self, life: Life) -> bool:
        """Whether its retries are spent, now that it has crashed; the budget is full again after health."""
        fake = life.fake
        if fake.reset_after is not None and life.ready_for is not None and life.ready_for >= fake.reset_after:
            life.backoffs = 0
        return fake.retries is not None and life.backoffs >= fake.retries

    def backoff(self, life: Life) -> float:
        """How long it waits after so many crashes in a row."""
        fake = life.fake
        return min(fake.delay * fake.factor ** (life.backoffs - 1), fake.max_delay)

    def breaks(self, event: Transition, life: Life) -> None:
        """It failed or was abandoned."""
        fake = life.fake
        self.check_error(event.error, life)
        if not fake.allowed:
            if self.first is None or self.lives[self.first].fake.allowed:
                self.first = fake.name
            if self.shutdown is not None:
                self.shutdown.services = min(self.shutdown.services, self.now)  # a failure waits for no drain delay
        self.first = self.first or fake.name
        if self.shutdown is None and not isinstance(event.error, ValueLost | StopTimeout | Uncancellable):
            assert self.spent(life), f"{fake.name} was given up although it had retries left"
        if isinstance(event.error, ValueLost):
            provider = self.lives[event.error.provider]
            assert provider.state in ENDED, f"{fake.name} failed for {provider.fake.name}, which may come back"
            assert provider.fake.name in fake.values, f"{fake.name} can do without {provider.fake.name}"
        elif isinstance(event.error, StopTimeout) and self.shares_are_known:
            assert life.asked is None or self.now >= self.cut_at(life) - A_MOMENT, f"{fake.name} was cut too early"
        elif event.state is State.ABANDONED and self.shutdown and self.shutdown.levels and self.shares_are_known:
            due = self.shutdown.deadline - self.shutdown.levels[fake.name] * self.shutdown.share
            assert abs(self.now - due) < A_MOMENT, f"{fake.name} was given up at {self.now}, not {due}"

    def check_error(self, error: BaseException | None, life: Life) -> None:
        """It is of this attempt, and what clean-up raised does not come before a crash."""
        assert error is not None, f"{life.fake.name} failed without an error"
        for one in leaves(error):
            if isinstance(one, Fault | SystemExit):
                text = f"{life.fake.name} {life.runs}"
                assert str(one) == text or (str(one) == f"{text} in clean-up" and not life.crashed), (
                    f"{one!r} came first"
                )
            elif isinstance(one, StartTimeout):
                assert life.ready_for is None, f"{life.fake.name} was ready in attempt {life.attempts}"

    # -- marks ---------------------------------------------------------------------------------------------------

    def mark(self, entry: Mark, life: Life) -> None:
        name = entry.service
        if entry.what == "begins":
            assert life.state in WORKING, f"{name} began to work in {life.state}"
            life.begun, life.runs = entry, entry.attempt
            for provider, attempt in entry.holds:
                begun = self.lives[provider].begun
                assert begun is not None, f"{name} holds the value of {provider}, which does not run"
                assert begun.attempt == attempt, f"{name} holds an old value of {provider}"
        elif entry.what == "poked":
            life.faulty = True
        elif entry.what == "serves":
            life.grace = None
        elif entry.what in {"returned", "crashed"}:
            life.left, life.crashed = True, entry.what == "crashed"
        elif entry.what == "releases":
            self.releases(entry, life)
        elif entry.what == "ends":
            if life.grace is not None and not life.faulty and self.shares_are_known:
                due = min(life.grace + 1, self.cut_at(life, life.grace))
                assert self.now >= due - A_MOMENT, f"{name} had no grace to become ready"
            life.begun = life.grace = None

    def releases(self, entry: Mark, life: Life) -> None:
        if self.shutdown and self.shutdown.forced:
            return
        for consumer in self.lives.values():
            if (entry.service, entry.attempt) in self.held(consumer):
                assert consumer.state is State.ABANDONED, (
                    f"the resources of {entry.service} close while {consumer.fake.name} runs with its value"
                )
        self.maybe_closing(life)

    def maybe_closing(self, life: Life) -> None:
        """Its clean-up is on the clock from when nobody holds its value."""
        held = any(one.state in RUNNING for one in self.consumers(life.fake.name))
        if life.state is State.STOPPING and life.left and life.closing is None and not held:
            life.closing = self.now

    # -- the whole -----------------------------------------------------------------------------------------------

    def between(self, then: float) -> None:
        """All that could happen at `now` has happened; the next thing happens *then*."""
        for name, life in self.lives.items():
            fake = life.fake
            assert life.must_stop is None, f"a value that {name} holds was going, and it went on"
            assert not (life.left and life.state is State.READY), f"the work of {name} ended, and it is still ready"
            if life.grace is not None:
                assert then <= life.grace + 1 + A_MOMENT, f"{name} had more than a second to become ready"
            if life.closing is not None and (self.shutdown is None or not fake.hangs):
                limit = life.closing + fake.stop_timeout + (1 if fake.hangs else 0)
                assert then <= limit + A_MOMENT, f"{name} closed for longer than it may"
            if self.shutdown is None and life.state in HALTED:
                gone = [provider for provider in fake.values if self.lives[provider].state in ENDED]
                assert not gone, f"{name} waits for {gone}, which will never come back"
                waits = life.state is State.WAITING and self.satisfied(fake)
                assert not waits, f"{name} could have started, and did not"
            if self.shutdown is not None:
                self.between_in_shutdown(life, then)
        if all(life.state in ENDED for life in self.lives.values()):
            assert self.shutdown is not None, "every service has ended, and the app went on"
        fatal = [name for name, life in self.lives.items() if life.state in BROKEN and not life.fake.allowed]
        assert not fatal or self.shutdown is not None, f"{fatal} failed, and the app went on"
        if not self.shutdown:
            assert self.all_ready or not self.is_all_ready(), "all were ready, and nobody said so"

    def between_in_shutdown(self, life: Life, then: float) -> None:
        assert self.shutdown is not None
        name = life.fake.name
        assert life.state not in HALTED, f"{name} is {life.state.value} in the shutdown"
        if then > self.shutdown.services + A_MOMENT and life.state in WORKING:
            assert self.running_dependents(name), f"{name} could have been stopped, and was not"
        if life.asked is not None and not self.shutdown.forced and not life.fake.hangs:
            assert then <= self.cut_at(life) + A_MOMENT, f"{name} was cut too late"

    def cut_at(self, life: Life, asked: float | None = None) -> float:
        """When it is cut, having been asked to stop in the shutdown."""
        down = self.shutdown
        asked = life.asked if asked is None else asked
        assert down is not None
        assert asked is not None
        levels = (down.levels or {}).get(life.fake.name, 0)
        return min(asked + life.fake.stop_timeout, down.deadline - (levels + 0.5) * down.share)

    @property
    def shares_are_known(self) -> bool:
        """Whether it is known when services are cut, and given up."""
        return self.shutdown is not None and not self.shutdown.forced and bool(self.shutdown.levels)

    def take_levels(self) -> None:
        """How many levels are below each, along those that are alive when services are first asked to stop."""
        down = self.shutdown
        if down is None or down.levels is not None or self.now < down.services - A_MOMENT:
            return
        if self.ends_with_the_delay():
            down.levels = {}
            return
        alive = {name for name, life in self.lives.items() if life.state in RUNNING}
        levels: dict[str, int] = {}

        def below(name: str) -> int:
            if name not in levels:
                levels[name] = max((below(one) + 1 for one in self.lives[name].fake.above if one in alive), default=0)
            return levels[name]

        longest = max((below(name) for name in alive), default=0)
        down.levels = levels
        down.share = min(1.0, (down.deadline - down.services) / (2 * (longest + 1)))

    def ends_with_the_delay(self) -> bool:
        """Whether some service ends in the very moment in which the delay does: it may count as alive, or not."""
        for when, entry in self.stage.log:
            if self.shutdown and abs(when - self.shutdown.services) < A_MOMENT and isinstance(entry, Transition):
                if entry.reason.startswith("requested"):
                    break
                if entry.previous in RUNNING and entry.state not in RUNNING and self.app.drain_delay:
                    return True
        return False

    def is_all_ready(self) -> bool:
        return all(
            life.state in ENDED or self.available(name) if life.fake.style != "oneshot" else life.state in ENDED
            for name, life in self.lives.items()
        )

    def ready(self, event: AllReady) -> None:
        assert not self.all_ready, "all were ready twice"
        assert self.shutdown is None, "all were ready in the stop"
        self.all_ready = True
        assert self.is_all_ready(), "not all are ready"
        assert abs(event.seconds - self.now) < A_MOMENT
        for before, after in zip(event.chain, event.chain[1:], strict=False):
            assert before in self.below(after), f"{after} did not wait for {before}"

    def below(self, name: str) -> set[str]:
        """What it waits for, directly or not: a dependency that took no time itself is left out of the chain."""
        found: set[str] = set()
        todo = [name]
        while todo:
            new = {*self.lives[todo.pop()].fake.above} - found
            found |= new
            todo += new
        return found

    def stop(self, event: StopBegan) -> None:
        assert self.shutdown is None, "the stop began twice"
        delay = self.app.drain_delay if event.reason == "signal" else 0.0
        self.shutdown = Shutdown(self.now, self.now + self.app.timeout, self.now + delay)
        fatal = [name for name, life in self.lives.items() if life.state in BROKEN and not life.fake.allowed]
        assert event.failure is bool(fatal), f"{fatal} failed, and the stop says otherwise"

    def force(self) -> None:
        assert self.shutdown is not None
        self.shutdown.forced = True
        self.shutdown.deadline = min(self.shutdown.deadline, self.now + 1)
        self.shutdown.services = min(self.shutdown.services, self.now)

    def end(self) -> None:
        report, down = self.stage.report, self.shutdown
        assert report is not None
        assert down is not None
        running = [name for name, life in self.lives.items() if life.begun]
        assert not running, f"still running: {running}"
        states = {name: life.state for name, life in self.lives.items()}
        assert all(state in ENDED for state in states.values()), f"not ended: {states}"
        assert self.stage.ended <= down.deadline + A_MOMENT, f"it took until {self.stage.ended}, not {down.deadline}"
        assert report.exit_code == self.exit_code(), f"exit code {report.exit_code}: {states}"
        assert report.first == self.first, f"the first failure was that of {self.first}, not {report.first}"
        for ending in report.endings:
            life = self.lives[ending.service]
            assert ending.state is life.state
            assert ending.attempts == life.attempts
            assert abs(ending.uptime - life.uptime) < A_MOMENT, f"{ending} was up for {life.uptime}"
            assert (ending.error is not None) is (ending.state in BROKEN)
            if ending.state in BROKEN and not down.forced:
                assert not self.blameless(life), f"nothing was wrong with {ending.service}"

    def exit_code(self) -> int:
        """The exit code by the table in the contract."""
        assert self.shutdown is not None
        states = {name: life.state for name, life in self.lives.items()}
        if self.shutdown.forced:
            return 130
        if State.ABANDONED in states.values():
            return 3
        if any(state is State.FAILED and not self.lives[name].fake.allowed for name, state in states.items()):
            return 1
        return int(all(state is State.FAILED for state in states.values()))

    def blameless(self, life: Life) -> bool:
        """Whether nothing can go wrong with it: it is quick, has no fault, and gets the values that it needs."""
        fake = life.fake
        return (
            not life.faulty
            and not (fake.start_timeout and fake.opening + fake.after >= fake.start_timeout)
            and not fake.hangs
            and self.closes_in_time(fake)
            and fake.drains is None
            and not fake.values
            and not (fake.opening and fake.stop_timeout <= 1)  # asked while starting, it serves as it is cut
        )

    def closes_in_time(self, fake: Fake) -> bool:
        """Whether its clean-up is shorter than what is left for it, whoever else overruns."""
        least = min(1.0, (self.app.timeout - self.app.drain_delay) / (2 * len(self.app.fakes)))
        return fake.closing < (least / 2 if not fake.opening else A_MOMENT)
