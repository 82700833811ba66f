"""Typed calls between services, in one process or many; imported only where a service uses them."""
