"""What to run: find services, select them, check them, draw their graph."""
