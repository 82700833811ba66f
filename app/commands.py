"""Commands of this app that do not belong to a service. This file is yours.

Their parameters become command-line arguments; `app --help` shows them.

    @command
    async def seed(*, users: int = 10) -> None:
        "Fill the database with examples."
"""
