"""The single file of an artifact: what is in it, how it is marked, and that it is the same for the same contents."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import json
import marshal
import sys
import zipfile
from importlib.metadata import Distribution
from pathlib import Path
from types import CodeType

import pytest

from tests.scripts.projects import REPO

sys.path.append(str(REPO / "scripts" / "kernel"))

from artifact import Contents, File
from one_file import as_zip, is_native

CACHED = f".{sys.implementation.cache_tag}.pyc"
STAMP = {"name": "my-app", "version": "1.2", "time": 1769840100}  # 2026-01-31 06:15:00


def executable(content: bytes) -> File:
    """Return a file that is executable."""
    file = File(content)
    file.executable = True
    return file


CODE = {
    "app/__init__.py": File(b"assert __debug__, 'as it is'\n"),
    "app/start.sh": executable(b"#!/bin/sh\n"),
    "services/newer.py": File(b"def broken(\n"),
    "services/table.csv": File(b"a,b\n" * 1000),
}


def package(folder: Path, **files: str) -> Distribution:
    """Install a package of these files, by the names of their modules."""
    names = [f"{name.replace('_', '.')}" for name in files]
    info = folder / "some-1.0.dist-info"
    info.mkdir(parents=True)
    for name, text in zip(names, files.values(), strict=True):
        (folder / name).write_text(text)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in [*names, "some-1.0.dist-info/METADATA"]))
    return Distribution.at(info)


def made(*packages: Distribution, code: dict[str, File] | None = None, built: str = "pyz") -> zipfile.ZipFile:
    """Return the file, opened."""
    return zipfile.ZipFile(io.BytesIO(as_zip(Contents(STAMP, CODE if code is None else code, packages), built)))


def stamp(file: zipfile.ZipFile) -> dict[str, object]:
    """Return its build.json."""
    told: dict[str, object] = json.loads(file.read("build.json"))
    return told


def test_entries_are_marked_alike_everywhere() -> None:
    """Sorted, with folders, modes of Unix, and the time of the commit; all that has content is compressed."""
    file = made()
    infos = file.infolist()
    assert [info.filename for info in infos] == [
        "__main__.py",
        "app/",
        "app/__init__.py",
        "app/__pycache__/",
        f"app/__pycache__/__init__{CACHED}",
        "app/start.sh",
        "build.json",
        "services/",
        "services/newer.py",
        "services/table.csv",
    ]
    modes = {info.filename: info.external_attr for info in infos}
    assert {modes[name] for name in modes if name.endswith("/")} == {0o40755 << 16 | 0x10}
    assert modes.pop("app/start.sh") == 0o100755 << 16
    assert {modes[name] for name in modes if not name.endswith("/")} == {0o100644 << 16}
    assert {(info.create_system, info.date_time) for info in infos} == {(3, (2026, 1, 31, 6, 15, 0))}
    for info in infos:
        assert info.compress_type == (zipfile.ZIP_STORED if info.is_dir() else zipfile.ZIP_DEFLATED)
    assert file.getinfo("services/table.csv").compress_size < 50
    assert file.read("services/table.csv") == CODE["services/table.csv"]


def test_bytecode_is_beside_its_source() -> None:
    """Python loads it without a look at the source; asserts are kept. What cannot be compiled here has none."""
    content = made().read(f"app/__pycache__/__init__{CACHED}")
    source = CODE["app/__init__.py"]
    assert content[:4] == importlib.util.MAGIC_NUMBER
    assert content[4:8] == b"\1\0\0\0"  # by its hash, which is not checked
    assert content[8:16] == importlib.util.source_hash(source)
    code: CodeType = marshal.loads(content[16:])  # noqa: S302  (it was made here)
    assert code == compile(source, "app/__init__.py", "exec", dont_inherit=True)
    assert code.co_filename == "app/__init__.py"
    assert any("as it is" in str(constant) for constant in code.co_consts)


def test_bytecode_knows_nothing_of_who_builds() -> None:
    """A future of the script's own is none of the app's: its annotations are evaluated."""
    file = made(code={"app/x.py": File(b"def f(x: int) -> None: ...\n")})
    names: dict[str, object] = {}
    exec(marshal.loads(file.read(f"app/__pycache__/x{CACHED}")[16:]), names)  # noqa: S102, S302
    assert names["f"].__annotations__["x"] is int


@pytest.mark.parametrize(
    ("files", "native", "site"),
    [
        ({"some_py": "x = 1\n"}, False, False),
        ({"some_py": "x = 1\n", "some_so": ""}, True, False),
        ({"some_pth": "import some\n", "some_py": "x = 1\n"}, False, True),
    ],
    ids=["plain", "native", "pth"],
)
def test_packages(tmp_path: Path, files: dict[str, str], native: bool, site: bool) -> None:
    """They are in a folder of their own, with their bytecode; the stamp says what they need."""
    file = made(package(tmp_path, **files), built="binary")
    names = {name for name in file.namelist() if name.startswith("__packages__/") and "dist-info" not in name}
    own = {f"__packages__/{name.replace('_', '.')}" for name in files}
    assert names == {"__packages__/", *own, "__packages__/__pycache__/", f"__packages__/__pycache__/some{CACHED}"}
    told = stamp(file)
    assert (told["native"], told["site"], told["built"], told["name"]) == (native, site, "binary", "my-app")


def test_digests_tell_code_and_packages_apart(tmp_path: Path) -> None:
    """That of the packages changes with them alone; that of the code with any file, its mode, and the packages."""
    plain, again = stamp(made()), stamp(made())
    assert plain == again
    others = [
        {**CODE, "app/x.py": File(b"")},
        {**CODE, "app/__init__.py": File(b"1\n")},
        {**CODE, "app/start.sh": File(b"#!/bin/sh\n")},
        {("app/go.sh" if path == "app/start.sh" else path): file for path, file in CODE.items()},
    ]
    told = [stamp(made(code=code)) for code in others]
    assert len({str(one["code"]) for one in [plain, *told]}) == 5
    assert {one["packages"] for one in told} == {plain["packages"]}
    first = stamp(made(package(tmp_path / "a", some_py="x = 1\n")))
    second = stamp(made(package(tmp_path / "b", some_py="x = 2\n")))
    assert len({str(one["packages"]) for one in (plain, first, second)}) == 3
    assert len({str(one["code"]) for one in (plain, first, second)}) == 3


def test_bytes_before_the_zip() -> None:
    """The file begins with them, and is a zip nevertheless."""
    content = as_zip(Contents(STAMP, {}, ()), "pyz", b"#!/usr/bin/env python3\n")
    assert content.startswith(b"#!/usr/bin/env python3\nPK")
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None


@pytest.mark.parametrize(
    ("path", "native"),
    [
        ("x/_speed.so", True),
        (f"x/_speed{importlib.machinery.EXTENSION_SUFFIXES[0]}", True),
        ("some.libs/libssl.so.3", True),
        ("x/_speed.py", False),
        ("x/sofa.txt", False),
    ],
)
def test_files_for_one_platform(path: str, native: bool) -> None:
    """Extension modules, and the libraries that wheels bring for them."""
    assert is_native(path) is native
