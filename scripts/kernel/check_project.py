"""Check what no linter knows: the project's name, its lock, and files that must not be committed."""

import subprocess
import sys
from collections.abc import Iterator

from bootstrap import LOCK, ROOT
from lock import header, hosts, read_project


def problems() -> Iterator[str]:
    """Yield a sentence for each problem."""
    project = read_project()
    name, scripts = project["project"]["name"], list(project["project"].get("scripts", {}))
    if scripts != [name]:
        yield f"pyproject.toml: [project.scripts] contains {scripts}; it must be only {name}, the project's name."
    text = LOCK.read_text()
    if not text.startswith(header(project)):
        yield "scripts/requirements.lock: the dependencies in pyproject.toml have changed since; run `just lock`."
    for line in hosts(text):
        yield f"scripts/requirements.lock: names a host ({line}); run `just lock`."
    tracked = subprocess.run(["git", "ls-files", "uv.lock"], cwd=ROOT, capture_output=True, check=False)
    if tracked.stdout:
        yield "uv.lock: is tracked, and names registry hosts; run `git rm --cached uv.lock`."


if __name__ == "__main__":
    found = list(problems())
    for problem in found:
        print(problem, file=sys.stderr)
    sys.exit(2 if found else 0)
