"""Building blocks for services: `serve_asgi` and `program`."""
