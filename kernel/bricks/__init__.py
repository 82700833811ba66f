"""What services are made of, beside the kernel itself: `serve_asgi` and `program`."""
