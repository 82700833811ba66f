"""What there is to run: found, chosen, checked and drawn."""
