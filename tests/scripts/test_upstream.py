"""Where upstream is, which versions it has, and which one an update takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.scripts.imported import Commit, Imported, make_commits


def version(number: str) -> dict[str, str]:
    """Return the files of a version."""
    return {"pyproject.toml": f'[project]\nname = "kernelpack"\nversion = "{number}"\n', "kernel/x.txt": number}


COMMITS = (
    Commit(version("0.1.0")),
    Commit(version("0.2.0"), [0]),
    Commit(version("0.10.0"), [1]),
    Commit(version("0.11.0.dev1"), [2]),
    Commit({"pyproject.toml": None}, [2], "refs/heads/bare"),
    Commit({"pyproject.toml": "[project"}, [2], "refs/heads/broken"),
    Commit({"pyproject.toml": '[project]\nname = "x"\n'}, [2], "refs/heads/versionless"),
    Commit({"pyproject.toml": '[project]\nversion = "new"\n'}, [2], "refs/heads/odd"),
)
TAGS = {"v0.1.0": 0, "v0.2.0": 1, "v0.10.0": 2, "0.99.0": 0, "v1": 0, "vx": 0, "v01.2.3": 0, "nightly": 3}


class Place:
    """An upstream, its commits, and a repository aside.

    Args:
        module: The script.
        folder: Where upstream is.
        ids: Its commits.
        aside: The repository aside.

    """

    def __init__(self, module: Any, folder: Path, ids: list[str], aside: Any) -> None:
        self.module, self.folder, self.ids, self.aside = module, folder, ids, aside
        self.short = [commit[:12] for commit in ids]

    def choose(self, wanted: str, present: str, at: int) -> Any:
        """Choose a version for a project that has the version *present*, made from a commit."""
        table = {"template": "kernelpack", "version": present, "commit": self.ids[at]}
        return self.module.choose(wanted.format(*self.short), table, self.aside)


@pytest.fixture(scope="module")
def fetched(imported_once: Imported, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A repository aside, as it is after everything was fetched; for tests that read it."""
    commits = [attrs.evolve(commit, ref=commit.ref.replace("heads", "upstream")) for commit in COMMITS]
    folder = tmp_path_factory.mktemp("fetched")
    refs = {**{f"refs/tags/{tag}": number for tag, number in TAGS.items()}, "refs/kernel/head": 3}
    ids = make_commits(folder, *commits, refs=refs)
    module = imported_once.load("upstream")
    aside = module.Aside.__new__(module.Aside)
    aside.folder = folder / ".git"
    return Place(module, folder, ids, aside)


@pytest.fixture
def place(imported: Imported, tmp_path: Path) -> Place:
    """An upstream, and a repository aside into which it was fetched."""
    ids = make_commits(tmp_path / "upstream", *COMMITS, refs={f"refs/tags/{tag}": at for tag, at in TAGS.items()})
    imported.git("init", "-q")
    module = imported.load("upstream")
    aside = module.Aside(imported.root / "aside.git")
    aside.fetch(str(tmp_path / "upstream"))
    return Place(module, tmp_path / "upstream", ids, aside)


# -- which version -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "wanted", "told", "ref"),
    [
        ("0.1.0", "", "0.10.0", "refs/tags/v0.10.0"),
        ("0.1.0", "0.2.0", "0.2.0", "refs/tags/v0.2.0"),
        ("0.1.0", "v0.2.0", "0.2.0", "refs/tags/v0.2.0"),
        ("0.9", "0.10.0", "0.10.0", "refs/tags/v0.10.0"),
        ("0.10.0", "main", "0.11.0.dev1 (commit {3})", "refs/upstream/main"),
        ("0.10.0", "nightly", "0.11.0.dev1 (commit {3})", "refs/tags/nightly"),
        ("0.1.0", "{1}", "0.2.0 (commit {1})", ""),
    ],
)
def test_the_version_to_take(fetched: Place, present: str, wanted: str, told: str, ref: str) -> None:
    """The newest by its numbers, or the one that is wanted: a version, a tag, a branch, or a commit."""
    target = fetched.choose(wanted, present, 0)
    number = {"0.2.0": 1, "0.10.0": 2, "0.11.0.dev1": 3}[target.version]
    assert (target.told, target.commit, target.ref) == (told.format(*fetched.short), fetched.ids[number], ref)
    assert target.name == (target.version if "commit" not in told else f"{target.version}-{fetched.short[number]}")


@pytest.mark.parametrize(
    ("present", "at", "wanted"),
    [("0.10.0", 2, ""), ("0.10.0", 2, "0.10.0"), ("0.10", 2, ""), ("0.11.0.dev1", 3, "main"), ("0.12.0", 3, "")],
)
def test_nothing_newer(fetched: Place, capsys: pytest.CaptureFixture[str], present: str, at: int, wanted: str) -> None:
    """It is told, and that is no failure."""
    assert fetched.choose(wanted, present, at) is None
    said = f"Nothing to do: this project has kernelpack {present}; the newest is 0.10.0.\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("present", "at", "wanted", "told"),
    [
        (
            "0.10.0",
            2,
            "0.2.0",
            r"^0\.2\.0 is older than 0\.10\.0, which this project has; an update only goes forward$",
        ),
        ("0.11.0.dev1", 3, "{1}", r"^0\.2\.0 \(commit [0-9a-f]+\) is older than 0\.11\.0\.dev1"),
        ("0.1.0", 0, "0.3.0", r"^upstream has no version 0\.3\.0; the newest is 0\.10\.0$"),
        (
            "0.1.0",
            0,
            "nothing",
            "^'nothing' is not a version, tag, branch or commit of upstream; the newest is 0.10.0$",
        ),
        ("0.1.0", 0, "0123456", "^'0123456' is not a version, tag, branch or commit of upstream"),
        ("0.1.0", 0, "HEAD", "^'HEAD' is not a version, tag, branch or commit of upstream"),
        (
            "0.1.0",
            0,
            "bare",
            "^upstream's bare has no pyproject.toml with a version, so it is no version of the framework$",
        ),
        ("0.1.0", 0, "broken", "^upstream's broken has no pyproject.toml"),
        ("0.1.0", 0, "versionless", "^upstream's versionless has no pyproject.toml"),
        ("0.1.0", 0, "odd", "^upstream's odd has no pyproject.toml"),
    ],
)
def test_versions_that_cannot_be_taken(fetched: Place, present: str, at: int, wanted: str, told: str) -> None:
    """The error says why, and what there is."""
    with pytest.raises(fetched.module.Refusal, match=told):
        fetched.choose(wanted, present, at)


def test_an_upstream_without_versions(
    fetched: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it has checked out counts; older than that is what is before it."""
    monkeypatch.setattr(fetched.aside, "refs", lambda _: ["vx"], raising=False)
    assert fetched.choose("", "0.10.0", 2).told == f"0.11.0.dev1 (commit {fetched.short[3]})"
    assert fetched.choose("", "0.11.0.dev1", 3) is None
    assert f"the newest is 0.11.0.dev1 (commit {fetched.short[3]}).\n" in capsys.readouterr().out
    with pytest.raises(fetched.module.Refusal, match="the newest is what it has checked out, as it has no tag like v1"):
        fetched.choose("9.9.9", "0.10.0", 2)


# -- where it is ---------------------------------------------------------------------------------------------------


def test_addresses(imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL stays as it is; a folder is absolute, and may be given as seen from the project or from home."""
    upstream = imported.load("upstream")
    imported.write("near/x", "")
    monkeypatch.setenv("HOME", str(imported.root))
    for address in ("https://git.example.com/x.git", "git@git.example.com:x.git", "file:///x"):
        assert upstream.address_of(address, plain=False) == address
    for address in ("near", "~/near", str(imported.root / "near"), "./scripts/../near"):
        assert upstream.address_of(address, plain=False) == str(imported.root / "near")
    assert upstream.address_of("http://git.example.com/x.git", plain=True) == "http://git.example.com/x.git"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://me:hunter2@x/y", "upstream 'http://x/y' uses http, where anybody on the network path can add code"),
        ("git://x/y", "upstream 'git://x/y' uses git, where anybody"),
        ("nowhere", "upstream = 'nowhere' under .* is neither an existing folder nor an address that git knows"),
        ("-u", "upstream = '-u' under .* is neither an existing folder"),
        ("ext::sh", "upstream = 'ext::sh' under .* is neither an existing folder"),
        ("a\tb", r"upstream = 'a\\tb' under .* is neither an existing folder"),
    ],
)
def test_addresses_that_are_refused(imported: Imported, address: str, told: str) -> None:
    """Without a secret in the error; also if there is a folder of that name."""
    upstream = imported.load("upstream")
    if "://" not in address and address != "nowhere":
        (imported.root / address).mkdir()
    with pytest.raises(upstream.Refusal, match=told):
        upstream.address_of(address, plain=False)


def test_an_upstream_that_is_not_there(place: Place, tmp_path: Path) -> None:
    """The error names it, once without git's words and once in them, and never a secret."""
    with pytest.raises(place.module.Refusal, match=r"^upstream '/.*' cannot be fetched: git fetch failed \("):
        place.aside.fetch(str(tmp_path / "nothing"))
    with pytest.raises(place.module.Refusal, match=r"^upstream 'https://[0-9.:]+/x' cannot be fetched") as caught:
        place.aside.fetch("https://me:hunter2@127.0.0.1:9/x")
    assert "hunter2" not in str(caught.value)


def test_how_it_is_fetched(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked for a password, and no other protocol is used, whatever is fetched; a HEAD may lead nowhere."""
    (place.folder / ".git" / "HEAD").write_text("ref: refs/heads/none\n")
    told: list[Any] = []
    real = place.module.git

    def git(*words: str, **options: Any) -> Any:
        told.append((words[words.index("fetch") :], options["env"]))
        return real(*words, **options)

    monkeypatch.setattr(place.module, "git", git)
    place.aside.fetch(str(place.folder))
    assert len(told) == 2
    for _, env in told:
        assert env == {"GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh", "GIT_TERMINAL_PROMPT": "0"}


# -- the repository aside ------------------------------------------------------------------------------------------


def test_it_has_the_objects_and_settings_of_the_project(place: Place, imported: Imported) -> None:
    """A commit of the project can be read there; the user signs there as always."""
    imported.git("config", "commit.gpgSign", "true")
    imported.git("config", "core.editor", "false")
    commit = imported.git("commit-tree", "-m", "Mine", imported.git("write-tree").strip()).strip()
    aside = place.module.Aside(imported.root / "other.git")
    assert aside.commit(commit) == commit
    assert aside.git("config", "--get-regexp", "commit|core.editor") == "commit.gpgsign true\n"
    assert aside.commit("nothing") == ""


def test_before_and_after(place: Place) -> None:
    """A commit that is not there is before none."""
    old, new, *_ = place.ids
    assert place.aside.is_before(old, new)
    assert not place.aside.is_before(new, old)
    assert not place.aside.is_before("1" * 40, new)


@pytest.mark.parametrize(("ref", "what"), [("refs/tags/v0.2.0", "the tag v0.2.0"), ("", "the commit {}")])
def test_a_version_that_nobody_has_signed(place: Place, ref: str, what: str) -> None:
    """The error says what is not signed, and where git's own words on that are."""
    target = place.module.Target("0.2.0", place.ids[1], ref, "0.2.0")
    told = (
        f"^VERIFY=1, and git cannot verify {what.format(place.ids[1][:12])} \\(git verify-(tag|commit) failed .*; see"
    )
    with pytest.raises(place.module.Refusal, match=told):
        place.aside.verify(target)


def test_a_folder_of_a_larger_repository(place: Place, imported: Imported) -> None:
    """An update sees it as a project of its own, and its result is put back beside all else."""
    (start,) = make_commits(
        imported.root,
        Commit({"a/b c/x.txt": "1", "a/b c/y.txt": "2", "a/z.txt": "3", "a0/b c/x.txt": "4", "b c/x.txt": "5"}),
    )
    alone = place.aside.only(start, "a/b c/")
    assert place.aside.git("ls-tree", "-r", "--name-only", alone) == "x.txt\ny.txt\n"
    assert place.aside.git("rev-list", "--count", alone) == "1\n"
    with pytest.raises(place.module.Refusal, match=r"^a/c/ is not in the last commit, so an update"):
        place.aside.only(start, "a/c/")
    tree = place.aside.git("rev-parse", f"{place.ids[0]}^{{tree}}").strip()
    message = "Update\n\n- News\n"
    new = place.aside.git("commit-tree", "-p", alone, "-F", "-", tree, stdin=message).strip()
    place.aside.git("update-ref", "refs/kernel/update", new)
    place.aside.graft(start, "a/b c/")
    told = place.aside.git("ls-tree", "-r", "--name-only", "refs/kernel/update").splitlines()
    assert told == ["a/b c/kernel/x.txt", "a/b c/pyproject.toml", "a/z.txt", "a0/b c/x.txt", "b c/x.txt"]
    assert place.aside.git("show", "--no-patch", "--format=%P %B", "refs/kernel/update") == f"{start} {message}\n"


def test_what_is_put_back_is_signed_as_always(place: Place, imported: Imported) -> None:
    """With the user's key, if the user signs commits; here there is none."""
    (start,) = make_commits(imported.root, Commit({"a/x.txt": "1"}))
    place.aside.git("update-ref", "refs/kernel/update", place.ids[0])
    place.aside.git("config", "gpg.program", "/nowhere")
    place.aside.graft(start, "a/")
    place.aside.git("config", "commit.gpgSign", "true")
    with pytest.raises(place.module.Refusal, match="git cannot sign the commit"):
        place.aside.graft(start, "a/")
