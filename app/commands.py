"""The commands of this app that belong to no service. This file is yours.

Their parameters are the command line's; `app --help` shows them.

    @command
    async def seed(*, users: int = 10) -> None:
        "Fill the database with examples."
"""
