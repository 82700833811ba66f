"""The process around the services: signals, event loop, watchdog, debugger."""
