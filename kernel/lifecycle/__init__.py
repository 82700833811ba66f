"""The lifecycle of one service, and of all services together."""
