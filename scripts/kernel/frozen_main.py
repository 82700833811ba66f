"""What the binary runs: the one file that hangs behind it. PyInstaller freezes this with the whole standard library."""

import runpy
import sys

runpy.run_path(sys.executable, run_name="__main__")
