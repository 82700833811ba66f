"""What can be seen of a run: logs, status, health, metrics, traces."""
