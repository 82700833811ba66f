"""Read the environment as typed values."""
