"""``python -m channels_wsdeny.daphne``."""

from __future__ import annotations

from .cli import CommandLineInterface

if __name__ == "__main__":
    CommandLineInterface.entrypoint()
