"""Daphne with what it lacks: denying a WebSocket handshake with an HTTP response.

``python -m channels_wsdeny.daphne`` takes every option of ``daphne``; ``manage.py runserver`` runs the same
server. Nothing of Daphne's is patched: server, protocol, command line and test process are subclasses.

This module imports nothing: `.server` installs Twisted's reactor, and `.testing` has to be able to import
that again in a child process.
"""
