"""`just commit-hook`: install or remove a hook that runs checks and tests before each commit."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from recipe import ROOT, Refusal, git, is_yes, run

USE = "just commit-hook, or just commit-hook REMOVE=1"
HOOK = """\
#!/bin/sh
# Made by `just commit-hook`. A script of your own, scripts/pre-commit, wins over the framework's.
{enter}exec scripts/kernel/script pre-commit
"""


def hook(words: Mapping[str, str]) -> None:
    """Install or remove git's hook. A hook from somebody else is not touched."""
    top, common = (Path(git("rev-parse", word).rstrip("\n")) for word in ("--show-toplevel", "--git-common-dir"))
    file = ROOT / git("rev-parse", "--git-path", "hooks/pre-commit").rstrip("\n")
    folder = file.parent.resolve()
    if not any(folder.is_relative_to((ROOT / place).resolve()) for place in (top, common)):
        raise Refusal(
            f"git's hooks are in {folder} (`git config --show-origin core.hooksPath` shows why), which may belong to~"
            " other repositories too; say `git config core.hooksPath .git/hooks` to have this repository's own,"
            " or let the hook there call scripts/kernel/pre-commit"
        )
    place = ROOT.relative_to(top.resolve()).as_posix()  # git starts a hook at the repository's top
    text = HOOK.format(enter="" if place == "." else f"cd -- {shlex.quote(place)} || exit\n")
    there = file.read_text(errors="replace") if file.exists() else text
    if there != text or file.is_symlink():
        raise Refusal(f"{file} is there already, and is not ours; let it call scripts/kernel/pre-commit, or remove it")
    if is_yes(words["REMOVE"], "REMOVE"):
        file.unlink(missing_ok=True)
        print("Commits are not tested any more.")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    print("Before each commit, `just test` runs; `git commit --no-verify` goes without.")


if __name__ == "__main__":
    run("commit-hook", USE, hook, "REMOVE")
