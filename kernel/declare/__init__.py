"""What users write: services, their signatures, retries, and the app's lifespans, observers and commands."""
