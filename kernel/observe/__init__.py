"""Everything that can be observed of a run: logs, status, health, metrics, traces."""
