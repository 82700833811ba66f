"""What these tests write."""

from __future__ import annotations

from collections.abc import Callable

from kernel.plan.discovery import Catalogue

Written = Callable[..., Catalogue]
"""Writes services: the names of absent ones, then texts by path below `services`; ``.py`` may be left out."""

HEAD = "from typing import Protocol\n\nfrom kernel import Serving, interface, service\n\n\n"
"""What each file begins with."""

PLAIN = "@service\nasync def {}() -> None: ..."
