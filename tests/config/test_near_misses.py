"""Variables that nobody reads, but that look like one that is read."""

from __future__ import annotations

import pytest

from kernel.config.near_misses import near_misses

KNOWN = ("DB_POOL_SIZE", "DB_PATH", "DB_PORT", "DB_HOSTS")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DB_POOLSIZE", "DB_POOL_SIZE"),
        ("DB_POOL_SIZ", "DB_POOL_SIZE"),
        ("RUNNER_SHUTDOWN_TIMEOUT", "RUNNER_SHUTDOWNTIMEOUT"),
        ("LOG_LEVELS", "LOG_LEVEL"),
        ("SERVICE_ENABLED", "SERVICES_ENABLED"),
        ("ADMIN_ADDRESS", "ADMIN_ADDR"),
        ("OTEL_EXPORTER_OTLP_ENDPOIN", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_SERVICENAME", "OTEL_SERVICE_NAME"),
    ],
)
def test_a_near_miss(name: str, meant: str) -> None:
    """A variable that nearly has the name of one that is read is warned about."""
    assert list(near_misses({name: "x"}, KNOWN)) == [f"{name} is set, but nothing reads it; did you mean {meant}?"]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "DB_POOL_SIZE",
            "LOG_LEVEL",
            "PATH",
            "HOME",
            "DB_SERVICE_HOST",
            "DB_PORT_5432_TCP",
            "DB_SERVICE_PORT",
            "EDITOR",
        ),
        "BD_POOL_SIZES",  # shares neither the first word nor the last, so it is not even compared
        *("OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_PYTHON_LOG_CORRELATION"),
    ],
)
def test_no_near_miss(name: str) -> None:
    """What is read, what is far from all of it, and Kubernetes' service links are not."""
    assert list(near_misses({name: "x"}, KNOWN)) == []


@pytest.mark.parametrize(
    ("name", "service", "field"),
    [
        ("HTTP_PROXY", "C", "HTTP_PROXY"),
        ("HTTPS_PROXY", "C", "HTTP_PROXY"),
        ("http_proxy", "c", "http_proxy"),
        ("NO_PROXY", "C", "NO_PROXY"),
        ("USER", "API", "USER"),
        ("HOSTNAME", "HOST", "NAME"),
        ("HOME", "APP", "HOME"),
        ("PATH", "A", "PATH"),
        ("LOGNAME", "LOG", "NAMES"),
        ("PYTHONPATH", "PYTHON", "PATH"),
        ("GOPATH", "GO", "PATH"),
        ("GRADLE_OPTS", "GRADE", "OPTS"),
        ("SSH_AUTH_SOCK", "API", "SSH_AUTH_SOCK"),
        ("AWS_REGION", "S3", "AWS_REGION"),
        ("JAVA_HOME", "JAVA", "HOMES"),
        ("XDG_RUNTIME_DIR", "X", "XDG_RUNTIME_DIR"),
        ("LC_ALL", "A", "LC_ALL"),
        ("GITHUB_TOKEN", "C", "GITHUB_TOKEN"),
        ("PORT", "API", "PORT"),
        ("TOKEN", "API", "TOKEN"),
    ],
)
def test_what_everybody_has_is_no_near_miss(name: str, service: str, field: str) -> None:
    """Whatever a service's fields are called, a variable of shells, systems and tools is not meant for them."""
    assert list(near_misses({name: "x"}, [f"{service}_{field}"])) == []


def test_a_service_may_be_named_like_a_tool() -> None:
    """Its variables are looked at like those of any other."""
    assert list(near_misses({"GIT_POOLSIZE": "x"}, ["GIT_POOL_SIZE"])) != []
    assert list(near_misses({"GIT_POOLSIZE": "x"}, ["API_GIT_POOL_SIZE"])) == []
    assert list(near_misses({"JAVA_POOLSIZE": "x"}, ["JAVA_POOL_SIZE"])) != []
    for service in ("GOODS", "NODES", "LESSONS", "MOZART"):  # these begin with the name of a tool
        assert list(near_misses({f"{service}_POOLSIZE": "x"}, [f"{service}_POOL_SIZE"])) != []


def test_each_variable_is_looked_at() -> None:
    """Those that follow one which is everywhere too; what ends like one of OpenTelemetry's is not meant for it."""
    assert len(list(near_misses({"OTEL_SERVICENAME": "x", "PATH": "x"}, KNOWN))) == 1
    environ = {"AWS_REGION": "x", "DB_POOLSIZE": "x", "MY_SERVICE_NAME": "x", "OTEL_SERVICE_NAME": "x", "PATH": "x"}
    environ |= {"ZB_POOL_SIZE": "x"}
    assert [told.partition(" ")[0] for told in near_misses(environ, KNOWN)] == ["DB_POOLSIZE", "ZB_POOL_SIZE"]


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("API_TOKENS", ["API_TOKEN", "API_TOKEN_S3", "API_TAKEN"], "API_TOKEN"),
        ("API_TOKENS", ["API_TAKEN", "API_TOKEN"], "API_TOKEN"),
        ("API_POOLSIZE", ["API_P_O_O_L_SIZE", "API_POOLSIZED"], "API_P_O_O_L_SIZE"),  # the same letters
        ("ADDRESSES", ["A_ADDRESSES", "ADDRESSED"], "ADDRESSED"),  # the first is nearer, but has one more word in front
        ("CACHESIZES", ["CACHESIZE", "X_CACHESIZES"], "CACHESIZE"),
        ("A_ADDRESSES", ["B_A_ADDRESSES"], "B_A_ADDRESSES"),
        ("THRESHOLD", ["A_THRESHOLD"], ""),
        ("API_HOST", ["API_PORT", "API_LOAD"], ""),
    ],
)
def test_the_nearest_is_meant(name: str, known: list[str], meant: str) -> None:
    """Of several the most similar one; a name of one word does not mean one that only has another word in front."""
    told = [f"{name} is set, but nothing reads it; did you mean {meant}?"] if meant else []
    assert list(near_misses({name: "x"}, known)) == told
