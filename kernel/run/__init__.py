"""One run of the program, and the commands that need no run."""
