"""Daphne with the one thing it lacks: denying a WebSocket handshake with a real HTTP response.

``python -m channels_wsdeny.daphne`` takes every option of ``daphne``; ``manage.py runserver`` runs
the same server. Nothing of Daphne's is patched: server, protocol and test process are subclasses.

This module imports nothing: `.server` installs Twisted's reactor, and `.testing` must be able to
import it afresh in a child process.
"""

from __future__ import annotations
