"""Requests, responses, sessions and ASGI messages, of handshakes and of HTTP."""
