"""Commands of this app that do not belong to a service. This file is yours.

Their parameters become command-line arguments; `app --help` shows them.

    @command
    async def seed(*, users: int = 10) -> None:
        "Fill the database with examples."

A command that needs the value of a service, such as its pool, is a command of a service: see docs/services.md.
"""
