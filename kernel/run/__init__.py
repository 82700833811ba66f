"""One run of the program, and commands that run without services."""
