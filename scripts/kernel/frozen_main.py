"""Run the file that is appended to the binary. PyInstaller freezes this with the whole standard library."""

import os
import runpy
import sys

# PyInstaller's loader has set the library path to the folder that it unpacked. Unset it, since the programs that the
# app
# starts, such as git and curl, need the system's libraries.
given = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
os.environ.pop("LD_LIBRARY_PATH", None)
if given is not None:
    os.environ["LD_LIBRARY_PATH"] = given

try:
    if sys.argv[1:2] == ["-ISc"]:  # like `python -ISc`, with which the app starts the guard of an external program
        source = sys.argv[2]
        del sys.argv[1:3]
        exec(source, {"__name__": "__main__"})  # noqa: S102
    else:
        runpy.run_path(sys.executable, run_name="__main__")
finally:
    # The loader flushes these at the end, and complains about closed ones, which multiprocessing's helper processes
    # leave.
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        if getattr(getattr(sys, name), "closed", False):
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
