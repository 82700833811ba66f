"""Runs a script, and kills it before the n-th thing that it does to a file, or starts.

    python killed.py 3 scripts/kernel/own.py NAME=my-app

With 0 nobody is killed, and the file that COUNTED names gets the number of things it did. Files outside the project and
of the folders that ALSO names, do not count. Nor do those that are thrown away from what was prepared aside: they are
many, and nothing depends on them.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path

ACTS = {
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.symlink",
    "os.link",
    "shutil.rmtree",
    "subprocess.Popen",
}
ROOT = Path.cwd()
PLACES = {ROOT, *(Path(one) for one in os.environ.get("ALSO", "").split(":") if one)}  # where git has its files, say
kill_at = int(sys.argv[1])
done: list[str] = []


def look(event: str, args: tuple[object, ...]) -> None:
    """Python tells of each of these before it is done."""
    file = args[0] if args and isinstance(args[0], str | os.PathLike) else ""  # else a descriptor, as that of a pipe
    path = Path(file).absolute()
    writes = event == "open" and file and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    aside = event in {"os.remove", "os.rmdir"} and (args[1] != -1 or ROOT / ".kernel/change/tree" in path.parents)
    aside = aside or (event != "subprocess.Popen" and not PLACES.intersection(path.parents))
    there = event == "os.mkdir" and path.is_dir()  # so nothing is done
    if (event in ACTS or writes) and not aside and not there:
        done.append(event)
        if len(done) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


script = sys.argv[2]
sys.argv = sys.argv[2:]
sys.path[0] = str(Path(script).resolve().parent)
sys.dont_write_bytecode = True  # it would be a step, and only the first time
sys.addaudithook(look)
try:
    runpy.run_path(script, run_name="__main__")
finally:
    if not kill_at:
        Path(os.environ["COUNTED"]).write_text(str(len(done)))
