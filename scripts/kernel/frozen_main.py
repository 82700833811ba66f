"""What the binary runs: the one file that hangs behind it. PyInstaller freezes this with the whole standard library."""

import runpy
import sys

if sys.argv[1:2] == ["-ISc"]:  # as `python -ISc`: the guard of an external program, which the app starts by this file
    source = sys.argv[2]
    del sys.argv[1:3]
    exec(source, {"__name__": "__main__"})  # noqa: S102
else:
    runpy.run_path(sys.executable, run_name="__main__")
