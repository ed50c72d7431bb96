"""The version of this distribution; ``pyproject.toml`` and the changelog's test read it from here."""

__version__ = "0.1.0"
