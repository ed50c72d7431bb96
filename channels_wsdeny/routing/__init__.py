"""The endpoint of an ASGI scope, found without running anything, and the guards before it."""
