"""Handlers of requests: WebSocket handshakes, ASGI applications over HTTP, and Django views."""
