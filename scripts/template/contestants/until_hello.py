"""Start a program, measure the time until hello-world says hello, and end the program gracefully."""

import json
import subprocess
import sys
import time

begun = time.perf_counter()
with subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE, text=True) as process:
    assert process.stderr is not None
    found = next((time.perf_counter() for line in process.stderr if "hello, world" in line), None)
    process.terminate()
    process.stderr.read()
if found is None or process.returncode:
    sys.exit(f"no greeting, or exit code {process.returncode}")
print(json.dumps({"ms": (found - begun) * 1000}))
