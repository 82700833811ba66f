"""Signals: which ones stop the program, what the next one does, and when none is needed."""

from __future__ import annotations

import signal

import pytest

from tests.conformance.program import App, NewApp

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

IDLE = """
@service
async def idle() -> None:
    await anyio.sleep_forever()
"""

SLOW = """
@service
async def slow(serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep_forever()
    log.info("closing")
    await anyio.sleep(0.6)
    log.info("closed")
"""


@pytest.mark.core
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_each_signal_stops(app: App, backend: str) -> None:
    """SIGINT, SIGTERM and SIGHUP stop alike, and the last line names the one that came."""
    app.service("idle", IDLE)
    runs = {number: app.run(KERNEL_BACKEND=backend) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, run in runs.items():
        result = run.stop(number)
        assert result.code == 0
        assert result.messages[-1] == f"exit 0: stopped by {number.name}"
        assert result.own_seconds < 1


@pytest.mark.core
def test_same_signal_twice_is_one(app: App) -> None:
    """The same signal twice within half a second counts once: the clean-up takes its time."""
    app.service("slow", SLOW)
    run = app.run()
    run.wait_for("all ready")
    run.send(signal.SIGINT)
    run.wait_for("closing")
    run.send(signal.SIGINT)
    result = run.result()
    assert result.code == 0
    assert result.said("slow: closed")


@pytest.mark.core
def test_second_signal_cuts(app: App) -> None:
    """Another one cuts what still runs, and that is said."""
    app.service("slow", SLOW.replace("0.6", "2.5"))
    run = app.run(RUNNER_SHUTDOWNTIMEOUT="10s")
    run.wait_for("all ready")
    run.send(signal.SIGINT)
    run.wait_for("closing")
    run.send(signal.SIGTERM, further=True)
    result = run.result()
    assert result.code == 130
    assert not result.said("slow: closed")
    assert result.said("cancelling what still runs: slow")
    assert result.messages[-1] == "exit 130: another signal cancelled slow before it had stopped"
    assert result.own_seconds < 2


def test_nohup_is_obeyed(app: App) -> None:
    """A SIGHUP that was ignored when the program started stays ignored."""
    app.service("idle", IDLE)
    run = app.open(("run",), {}, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    run.wait_for("all ready")
    run.send(signal.SIGHUP)
    run.send(signal.SIGTERM)
    assert run.result().messages[-1] == "exit 0: stopped by SIGTERM"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_forked_children_have_their_own_signals(app: App, number: signal.Signals) -> None:
    """A signal to a child that a service has forked ends the child, and nothing else."""
    app.service(
        "parent",
        f"""
        @service
        async def parent() -> None:
            import multiprocessing
            began = multiprocessing.get_context("fork").Event()

            def wait() -> None:
                began.set()
                time.sleep(60)

            child = multiprocessing.get_context("fork").Process(target=wait)
            child.start()
            await anyio.to_thread.run_sync(began.wait)
            os.kill(child.pid, signal.{number.name})
            await anyio.to_thread.run_sync(child.join)
            log.info("the child ended with %s", child.exitcode)
            await anyio.sleep(0.1)
            log.info("still here")
            await anyio.sleep_forever()
        """,
    )
    result = app.run().stop(after="still here")
    assert result.code == 0
    ends = {-number} if number != signal.SIGINT else {-number, 1}  # 1: multiprocessing shows a KeyboardInterrupt
    assert any(result.said(f"the child ended with {code}") for code in ends)


def test_lock_held_before_the_signal(app: App) -> None:
    """While native code holds the interpreter's lock nothing of Python's runs: the stop begins when it lets go."""
    app.service(
        "greedy",
        """
        @service
        async def greedy(serving: Serving[None]) -> None:
            import ctypes
            async with serving():
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # or it would end the call
                log.info("holds the lock")
                ctypes.PyDLL(None).sleep(1)
                await anyio.sleep_forever()
            log.info("closed")
        """,
    )
    # The signal may come just before the lock is taken: then the deadline counts from there.
    result = app.run(RUNNER_SHUTDOWNTIMEOUT="3s").stop(after="holds the lock")
    assert result.code == 0
    assert result.said("greedy: closed")
    assert result.seconds > 0.8
    assert result.own_seconds < 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_others_who_take_the_pipe(app: App, backend: str) -> None:
    """A library that takes the place where the interpreter tells of signals does not cost us ours."""
    app.service(
        "rival",
        """
        import socket
        @service
        async def rival() -> None:
            here, there = socket.socketpair()
            there.setblocking(False)
            signal.set_wakeup_fd(there.fileno())
            await anyio.sleep_forever()
        """,
    )
    assert app.run(KERNEL_BACKEND=backend).stop().messages[-1] == "exit 0: stopped by SIGTERM"


def test_quits_when_all_is_done(app: App) -> None:
    """A process with nothing left to do ends by itself."""
    app.service("idle", "@service(oneshot=True)\nasync def idle() -> None:\n    pass")
    result = app.call("run")
    assert result.code == 0
    assert result.messages[-1] == "exit 0: every service has ended"


@pytest.mark.core
def test_signal_during_imports(app: App) -> None:
    """Nothing is started, and the exit code is 0."""
    app.service("idle", 'print("importing", file=sys.stderr, flush=True)\ntime.sleep(0.3)\n' + IDLE)
    result = app.run().stop(after="importing")
    assert result.code == 0
    assert result.messages == ["exit 0: SIGTERM received before anything was started"]


def test_signal_while_starting(new_app: NewApp) -> None:
    """A service that is starting gets a second to serve, and closes calmly; its dependents never start."""
    starting, stuck = new_app(), new_app()
    source = """
    @service
    async def first(serving: Serving[int]) -> None:
        try:
            log.info("connecting")
            await anyio.sleep({seconds})
            async with serving(1):
                log.info("never here")
                await anyio.sleep_forever()
            await anyio.sleep(0.01)
            log.info("closed calmly")
        except BaseException as error:
            log.info("cancelled")
            raise
    """
    for tree, seconds in ((starting, 0.2), (stuck, 20)):
        tree.service("first", source.format(seconds=seconds))
        tree.service("second", '@service(depends=["first"])\nasync def second(first: int) -> None:\n    log.info("on")')
    runs = [tree.run(RUNNER_SHUTDOWNTIMEOUT="3s") for tree in (starting, stuck)]
    for run in runs:
        run.wait_for("connecting")
        run.send(signal.SIGTERM)
    soon, late = (run.result() for run in runs)
    assert soon.code == late.code == 0
    assert soon.said("first: closed calmly")
    assert late.said("first: cancelled")
    assert late.seconds > 0.9
    assert late.own_seconds < 1.9
    for result in (soon, late):
        assert result.ending("second") == "stopped"
        assert not result.said("second: on")


def test_signal_while_backing_off(app: App) -> None:
    """A stop wins over the next attempt."""
    app.service("flaky", "@service(retries=3)\nasync def flaky() -> None:\n    raise OSError('no route')")
    result = app.run().stop(after="retry 1 of 3")
    assert result.code == 0
    assert result.ending("flaky") == "stopped"
    assert result.own_seconds < 0.5


def test_signal_during_the_stop_that_a_failure_began(app: App) -> None:
    """It is acknowledged, and the exit code tells of the failure; the next one cuts."""
    app.service("slow", SLOW.replace("0.6", "2.5"))
    app.service("broken", "@service(depends=['slow'])\nasync def broken() -> None:\n    raise OSError('no route')")
    runs = [app.run(RUNNER_SHUTDOWNTIMEOUT="5s"), app.run(RUNNER_SHUTDOWNTIMEOUT="5s")]
    for run in runs:
        run.wait_for("closing")
        run.send(signal.SIGTERM)
        run.wait_for("SIGTERM: the app is already stopping; another signal cancels what is still running")
    runs[1].send(signal.SIGINT, further=True)
    calm, cut = (run.result() for run in runs)
    assert calm.code == 1
    assert calm.said("slow: closed")
    assert cut.code == 130
    assert not cut.said("slow: closed")


def test_drain_delay(app: App) -> None:
    """On a stop, nothing is asked to end before RUNNER_DRAINDELAY has passed; a further signal does not wait."""
    app.service("idle", IDLE)
    env = {"RUNNER_DRAINDELAY": "2500ms", "RUNNER_SHUTDOWNTIMEOUT": "5s"}
    runs = [app.run(**env), app.run(**env)]
    for run in runs:
        run.wait_for("all ready")
        run.send(signal.SIGTERM)
    runs[1].wait_for("stopping: SIGTERM")
    runs[1].send(signal.SIGINT, further=True)
    calm, cut = (run.result() for run in runs)
    assert calm.code == 0
    assert calm.seconds > 2.5
    assert cut.code == 130
    assert cut.own_seconds < 2.5


def test_late_signals_change_nothing(app: App) -> None:
    """When all has ended, a second Ctrl+C finds a program that is on its way out already."""
    app.service("idle", IDLE)
    app.init(
        """
        import atexit
        def last() -> None:
            print("last", file=sys.stderr, flush=True)
            time.sleep(0.3)
        atexit.register(last)
        """
    )
    run = app.run()
    run.wait_for("all ready")
    run.send(signal.SIGINT)
    run.wait_for("^last")
    run.send(signal.SIGINT)
    assert run.result().code == 0


def test_an_exit_handler_that_hangs(app: App) -> None:
    """The deadline holds to the very end of the process."""
    app.service("idle", IDLE)
    app.init("import atexit\natexit.register(lambda: time.sleep(20))")
    result = app.run().stop()
    assert result.code == 3
    assert result.said("exit 3: .* services have stopped, but the interpreter has not exited; it is at app/init.py:8")
    assert result.own_seconds < 3


def test_a_further_signal_ends_an_exit_handler_that_hangs(app: App) -> None:
    """Who presses Ctrl+C again does not have to wait for the deadline, although every service has stopped."""
    app.service("idle", IDLE)
    app.init("import atexit\natexit.register(lambda: (print('hangs', file=sys.stderr, flush=True), time.sleep(60)))")
    run = app.run(RUNNER_SHUTDOWNTIMEOUT="50s")
    run.wait_for("all ready")
    run.send(signal.SIGTERM)
    run.wait_for("^hangs")
    run.send(signal.SIGTERM, further=True)
    result = run.result()
    assert result.code == 130
    assert result.messages[-1] == "exit 130: received another signal (SIGTERM); exiting now without clean-up"
    assert result.own_seconds < 20


def test_what_was_printed_before_the_third_signal_is_not_lost(app: App) -> None:
    """The process ends at once, but not before it has written what it has printed into a pipe."""
    app.service(
        "stubborn",
        """
        @service
        async def stubborn(serving: Serving[None]) -> None:
            async with serving():
                await anyio.sleep_forever()
            print("printed, and not flushed")
            log.info("blocks")
            time.sleep(60)
        """,
    )
    run = app.run(RUNNER_SHUTDOWNTIMEOUT="50s")
    run.wait_for("all ready")
    run.send(signal.SIGTERM)
    run.wait_for("blocks")
    run.send(signal.SIGTERM, further=True)
    run.send(signal.SIGTERM, further=True)
    result = run.result()
    assert result.code == 130
    assert "printed, and not flushed" in result.stdout


@pytest.mark.parametrize("number", SIGNALS)
def test_while_the_kernel_itself_is_imported(tree: App, number: signal.Signals) -> None:
    """Nothing was started, so the end is as asked; here the first module that the kernel imports takes its time."""
    tree.write("anyio.py", "import time\nprint('importing', flush=True)\ntime.sleep(20)\n")
    result = tree.run().stop(number, after="importing")
    assert result.code == 0
    assert result.stderr == ""


@pytest.mark.parametrize("number", SIGNALS)
def test_in_the_interpreters_last_moments(app: App, number: signal.Signals) -> None:
    """When all is said and the exit code is known, a late signal does not change it any more."""
    app.service(
        "done",
        """
        import builtins

        class Last:
            def __del__(self, sleep=time.sleep, write=os.write):
                write(1, b"last\\n")
                sleep(0.7)

        builtins.last = Last()  # goes when the interpreter takes its modules apart

        @service(oneshot=True)
        async def done() -> None: ...
        """,
    )
    result = app.run().stop(number, after="last")
    assert result.code == 0, result.stderr
