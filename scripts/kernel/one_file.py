"""Build the single file of an artifact: code and packages with their bytecode, identical for identical contents."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import io
import marshal
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from artifact import STAMP, Contents, File, files_of

MAIN = Path(__file__).with_name("pyz_main.py.in")
PACKAGES = "__packages__"  # the folder of the packages in the file
CHECKED_NEVER = (1).to_bytes(4, "little")  # the bytecode's flags: it matches the source beside it, without a check


def is_native(path: str) -> bool:
    """Return whether a file is compiled for one platform."""
    return path.endswith((*importlib.machinery.EXTENSION_SUFFIXES, ".so")) or ".so." in path


def as_zip(contents: Contents, built: str, prefix: bytes = b"") -> bytes:
    """Return the artifact's single file, identical for identical contents.

    Args:
        contents: The contents.
        built: How it was built, for `app version`.
        prefix: Bytes before the zip, such as a line that names an interpreter.

    """
    packages = {path: file for package in contents.packages for path, file in files_of(package).items()}
    stamp = {
        **contents.stamp,
        "built": built,
        "native": any(map(is_native, packages)),
        "site": any(path.endswith(".pth") for path in packages),
        "packages": _digest(packages),
    }
    stamp["code"] = _digest({**contents.code, STAMP: File.of(stamp)})
    entries = {**_with_bytecode(contents.code), STAMP: File.of(stamp), "__main__.py": File.read(MAIN)}
    entries |= {f"{PACKAGES}/{path}": file for path, file in _with_bytecode(packages).items()}
    folders = {f"{parent}/" for path in entries for parent in PurePosixPath(path).parents if parent.name}
    target = io.BytesIO()
    target.write(prefix)
    with zipfile.ZipFile(target, "a") as archive:
        for path in sorted([*entries, *folders]):
            info = zipfile.ZipInfo(path, contents.time.timetuple()[:6])
            info.compress_type = zipfile.ZIP_STORED if path.endswith("/") else zipfile.ZIP_DEFLATED
            mode = 0o100755 if path in entries and entries[path].executable else 0o100644
            info.external_attr = (0o40755 << 16 | 0x10) if path.endswith("/") else mode << 16
            archive.writestr(info, entries.get(path, b""))
    return target.getvalue()


def _digest(files: Mapping[str, File]) -> str:
    digest = hashlib.sha256()
    for path, content in sorted(files.items()):
        digest.update(f"{path}\0{len(content)}\0{content.executable:d}\0".encode() + content)
    return digest.hexdigest()


def _with_bytecode(files: Mapping[str, File]) -> dict[str, File]:
    """Return the files, and for each Python file its bytecode for this Python; other versions compile their own."""
    found = dict(files)
    for path, content in files.items():
        compiled = _compiled(path, content) if path.endswith(".py") else b""
        if compiled:
            file = PurePosixPath(path)
            beside = file.parent / "__pycache__" / f"{file.stem}.{sys.implementation.cache_tag}.pyc"
            found[beside.as_posix()] = File(compiled)
    return found


def _compiled(path: str, source: bytes) -> bytes:
    """Return the bytecode of a file; empty if this Python cannot compile it, since it needs another version."""
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        return b""
    head = importlib.util.MAGIC_NUMBER + CHECKED_NEVER + importlib.util.source_hash(source)
    return head + marshal.dumps(code)
