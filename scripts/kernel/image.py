"""`just image`: build an image of the app with podman, buildah or docker, whichever is installed.

The build context is a temporary folder with the app's code, and its packages as lines of the lock, with hashes. The
framework's Containerfile builds the image; a Containerfile of the user, in the top folder, builds on that image.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from packaging.utils import canonicalize_name

from artifact import STAMP, Contents, collect
from build import tell
from recipe import ROOT, Refusal, run, show

USE = "just image SERVICES=a,b BASE=python:3.13-slim PIP_CONF=~/.config/pip/pip.conf"
PROGRAMS = ("podman", "buildah", "docker")
OURS = Path(__file__).with_name("Containerfile")


def image(words: Mapping[str, str]) -> None:
    """Build the image, tag it with the app's name and version, and say how to run it."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise Refusal("there is neither podman nor buildah nor docker on PATH; install one of them")
    contents = collect(ROOT, words["SERVICES"])
    stamp = contents.stamp
    tag = f"{stamp['name']}:{re.sub('[^A-Za-z0-9_.-]', '-', str(stamp['version']))}"
    own = ROOT / "Containerfile"
    base = f"{stamp['name']}-base:{tag.partition(':')[2]}" if own.exists() else tag
    with tempfile.TemporaryDirectory() as folder:
        write_context(contents, Path(folder))
        given = [word for key in ("BASE", "BUILDER") if words[key] for word in ("--build-arg", f"{key}={words[key]}")]
        if words["PIP_CONF"]:
            settings = Path(words["PIP_CONF"]).expanduser()
            if not settings.is_file():
                raise Refusal(f"PIP_CONF={show(words['PIP_CONF'])} is not a file; usage: {USE}")
            given += ["--secret", f"id=pip.conf,src={settings.resolve()}"]
        _build([program, "build", "--tag", base, *given, "--file", str(OURS)], Path(folder), contents)
    if own.exists():
        _build([program, "build", "--tag", tag, "--build-arg", f"BASE={base}", "--file", str(own)], ROOT, contents)
    print(f"{tag}: {tell(contents)}")


def write_context(contents: Contents, folder: Path) -> None:
    """Write the files that the Containerfile copies: `app` with code and stamp, and requirements.txt."""
    for path, content in contents.code.items():
        (folder / "app" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "app" / path).write_bytes(content)
    stamp = {**contents.stamp, "built": "image"}
    (folder / "app" / STAMP).write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n")
    lock = (ROOT / "scripts" / "requirements.lock").read_text()
    names = [canonicalize_name(package.name) for package in contents.packages]
    (folder / "requirements.txt").write_text("".join(locked(lock, names)))


def locked(lock: str, names: Iterable[str]) -> list[str]:
    """Return the lines of the lock for the packages with these names."""
    blocks = re.split(r"(?m)^(?=[a-z0-9])", lock)
    wanted = set(names)
    return [block for block in blocks if block.partition("==")[0] in wanted]


def _build(command: list[str], folder: Path, contents: Contents) -> None:
    stamp = contents.stamp
    revision = f"{stamp['commit'] or 'unknown'}{'-dirty' if stamp['dirty'] else ''}"
    labels = {
        "title": stamp["name"],
        "version": stamp["version"],
        "revision": revision,
        "created": datetime.fromtimestamp(int(str(stamp["time"])), UTC).isoformat(),
    }
    program = Path(command[0]).name
    if program != "docker":
        command += ["--format", "docker"]  # the other format has no HEALTHCHECK
    for key, value in labels.items():
        command += ["--label", f"org.opencontainers.image.{key}={value}"]
    done = subprocess.run([*command, str(folder)], check=False)
    if done.returncode:
        raise Refusal(f"{program} failed with exit code {done.returncode}; see its output above")


if __name__ == "__main__":
    run("image", USE, image, "SERVICES", "BASE", "BUILDER", "PIP_CONF")
