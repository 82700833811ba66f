"""What users write: services, their signatures, retries, the app's own parts."""
