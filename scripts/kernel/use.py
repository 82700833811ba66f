"""Handle a recipe without arguments: print its help on request, and refuse anything else.

scripts/kernel/script use format --help
"""

from __future__ import annotations

import sys

from recipe import run

if __name__ == "__main__":
    recipe = sys.argv.pop(1)
    run(recipe, f"just {recipe}", lambda _: None)
