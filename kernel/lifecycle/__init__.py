"""One service's life, then the life of all of them."""
