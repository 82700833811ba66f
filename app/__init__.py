"""The app: its entry point, and what it adds around the services."""
