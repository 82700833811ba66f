"""What the binary runs: the one file that hangs behind it. PyInstaller freezes this with the whole standard library."""

import os
import runpy
import sys

# The part in C lets libraries be found in the folder that it has unpacked. That is done; the programs that the app
# starts, such as git and curl, have libraries of their own.
given = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
os.environ.pop("LD_LIBRARY_PATH", None)
if given is not None:
    os.environ["LD_LIBRARY_PATH"] = given

try:
    if sys.argv[1:2] == ["-ISc"]:  # as with `python -ISc`: the guard of an external program, which the app starts so
        source = sys.argv[2]
        del sys.argv[1:3]
        exec(source, {"__name__": "__main__"})  # noqa: S102
    else:
        runpy.run_path(sys.executable, run_name="__main__")
finally:
    # The part in C flushes these at the end, and complains of closed ones, which multiprocessing's helpers leave.
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        if getattr(getattr(sys, name), "closed", False):
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
