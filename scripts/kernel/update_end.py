"""`just kernel-update-review`, `-merge` and `-revert`: show, merge or remove the branch of `just kernel-update`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from merge_files import YOURS
from recipe import ROOT, Refusal, bring_venv_up_to_date, git, refuse_nobody, refuse_uncommitted, run
from staging import Change
from switch import commit_of, put_branch, put_files, put_head, refuse_elsewhere, refuse_unusual_git, remove_branch
from update import BRANCH, NOTE

USE = "just kernel-update-{}"
MARKS = {"A": "new", "D": "deleted", "M": "changed", "T": "changed", "R": "renamed"}


def _pending() -> dict[str, Any]:
    """Return the note about the pending update.

    Raises:
        Refusal: There is no pending update, or its note is missing.

    """
    note: dict[str, Any] = json.loads((ROOT / NOTE).read_text()) if (ROOT / NOTE).exists() else {}
    if note and commit_of(note["branch"]):
        return note
    left = git("for-each-ref", "--format=%(refname:lstrip=2)", f"refs/heads/{BRANCH}*").split()
    if left:
        raise Refusal(
            f"{NOTE}, which describes the branch {left[0]}, is missing; another clone or worktree has made the update:"
            f" merge it with `git merge {left[0]}`, or delete it with `git branch -D {left[0]}`"
        )
    raise Refusal("no update is pending; `just kernel-update` makes one")


def _open(note: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    """Yield the conflicts that are not resolved on the branch."""
    for clash in note["clashes"]:
        path = clash["aside"] or clash["path"]
        words = ["cat-file", "blob", f"{commit_of(note['branch'])}:./{path}"]
        there = git("ls-tree", "--name-only", "-z", commit_of(note["branch"]), "--", f":(literal){path}")
        if there and (clash["aside"] or f"\n<<<<<<< {YOURS}" in "\n" + git(*words)):
            yield clash


def review(_: Mapping[str, str]) -> None:
    """Show the update's changes, its conflicts, and the output of the tests."""
    note = _pending()
    print(f"{note['template']} {note['base_version']} -> {note['version']}, on the branch {note['branch']}\n")
    told = iter(git("diff", "--name-status", "--relative", "-M", "-z", note["start"], note["branch"]).split("\0"))
    for state in told:
        if not state:
            break
        path = next(told)
        if state[0] == "R":
            path = f"{path} -> {next(told)}"
        print(f"{MARKS.get(state[0], 'changed'):8}  {path}")
    for path in note["merged"]:
        print(f"{'merged':8}  {path}: your changes are in it")
    for path in note["opted_out"]:
        print(f"{'left':8}  {path}: .kernelupdateignore names it")
    unresolved = list(_open(note))
    print(f"\n{len(unresolved) or 'No'} conflict{'' if len(unresolved) == 1 else 's'}{':' if unresolved else '.'}")
    for clash in unresolved:
        where = f"see {clash['aside']}, and delete it when you are done" if clash["aside"] else "see the markers in it"
        print(f"- {clash['path']}: {clash['why']}; {where}")
    tests = note["tests"]
    well = "passed" if not tests["code"] else f"FAILED with exit code {tests['code']}"
    print(f"\n`just test` {well} after {tests['seconds']:.1f} s:")
    for line in tests["said"]:
        print(f"    {line}".rstrip())
    way = "Resolve and commit, then" if unresolved else "Now"
    print(f"\n{way} `just kernel-update-merge`, or `just kernel-update-revert`. All changes: git diff {note['onto']}")


def merge(_: Mapping[str, str]) -> None:
    """Merge the branch into the one that it was made from, and delete it; everything or nothing."""
    note = _pending()
    branch, onto = note["branch"], note["onto"]
    refuse_unusual_git()
    refuse_uncommitted()
    unresolved = [clash["aside"] or clash["path"] for clash in _open(note)]
    if unresolved:
        more = f" and {len(unresolved) - 1} more" if len(unresolved) > 1 else ""
        raise Refusal(
            f"there are conflicts ({unresolved[0]}{more}); `just kernel-update-review` says what to do on {branch}"
        )
    if git("branch", "--show-current").strip() not in {branch, onto}:
        raise Refusal(f"another branch is checked out; `git checkout {branch}` first")
    refuse_elsewhere(onto)
    with Change("just kernel-update-merge") as change:
        commit = _merged(branch, onto)
        put_branch(change, onto, commit)
        put_files(change, commit)
        _leave(change, note)
        done = f"{onto} has {note['template']} {note['version']}."
        change.make(done)
    print(done)
    bring_venv_up_to_date()


def _merged(branch: str, onto: str) -> str:
    """Return the commit that contains both; create a merge if each has its own commits.

    Raises:
        Refusal: They cannot be merged automatically.

    """
    tip, update = commit_of(onto), commit_of(branch)
    if not tip:
        raise Refusal(f"the branch {onto}, from which the update was made, is gone; `git branch {onto}` brings it back")
    common = git("merge-base", tip, update, accept=(0, 1)).strip()
    if common in {tip, update}:
        return update if common == tip else tip
    refuse_nobody("the merge")
    told = git("merge-tree", "--write-tree", "--name-only", "-z", tip, update, accept=(0, 1)).split("\0")
    clashing = told[1 : told.index("", 1)] if "" in told[1:] else []
    if clashing:
        raise Refusal(
            f"{onto} has changed since, in the same places ({clashing[0]}); `git merge {onto}` on {branch} and resolve,"
            " then run this again"
        )
    signed = git("config", "--type=bool", "--get", "commit.gpgSign", accept=(0, 1)).strip() == "true"
    words = ["-S"] if signed else []
    return git("commit-tree", *words, "-p", tip, "-p", update, "-m", f"Merge branch '{branch}'", told[0]).strip()


def revert(_: Mapping[str, str]) -> None:
    """Remove all traces of the update, and name the user's own commits on its branch."""
    note = _pending()
    branch, onto = note["branch"], note["onto"]
    refuse_unusual_git()
    tip = commit_of(branch)
    added = git("rev-list", "--count", f"{tip}", "--not", note["start"], "--").strip()
    with Change("just kernel-update-revert") as change:
        if git("branch", "--show-current").strip() == branch:
            refuse_uncommitted()
            if not commit_of(onto):
                raise Refusal(f"the branch {onto} is gone; `git branch {onto} {note['start'][:12]}` brings it back")
            refuse_elsewhere(onto)
            put_files(change, commit_of(onto))
            _leave(change, note)
        else:
            _forget(change, note)
        done = f"the update to {note['version']} is reverted."
        change.make(done)
    print(done[0].upper() + done[1:])
    if added != "1":
        print(f"You had commits of your own on its branch: `git branch NAME {tip[:12]}` brings them back.")
    bring_venv_up_to_date()


def _leave(change: Change, note: Mapping[str, Any]) -> None:
    put_head(change, note["onto"])
    _forget(change, note)


def _forget(change: Change, note: Mapping[str, Any]) -> None:
    remove_branch(change, note["branch"])
    change.remove(note["backup"])
    change.remove(NOTE)


if __name__ == "__main__":
    word = sys.argv.pop(1)
    run(f"kernel-update-{word}", USE.format(word), {"review": review, "merge": merge, "revert": revert}[word])
