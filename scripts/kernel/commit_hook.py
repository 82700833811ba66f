"""`just commit-hook`: checks and tests before each commit, or no more of that."""

from __future__ import annotations

from collections.abc import Mapping

from recipe import ROOT, Refusal, git, is_yes, run

USE = "just commit-hook, or just commit-hook REMOVE=1"
HOOK = """\
#!/bin/sh
# Made by `just commit-hook`. A script of your own, scripts/pre-commit, wins over the framework's.
exec scripts/kernel/script pre-commit
"""


def hook(words: Mapping[str, str]) -> None:
    """Writes git's hook, or removes it; one that somebody else wrote is left alone."""
    file = ROOT / git("rev-parse", "--git-path", "hooks/pre-commit").rstrip("\n")
    ours = not file.exists() or file.read_text(errors="replace") == HOOK
    if not ours:
        raise Refusal(f"{file} is there already, and is not ours; let it call scripts/kernel/pre-commit, or remove it")
    if is_yes(words["REMOVE"], "REMOVE"):
        file.unlink(missing_ok=True)
        print("Commits are not tested any more.")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(HOOK)
    file.chmod(0o755)
    print("Before each commit, `just test` runs; `git commit --no-verify` goes without.")


if __name__ == "__main__":
    run("commit-hook", USE, hook, "REMOVE")
