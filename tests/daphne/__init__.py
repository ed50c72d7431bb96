"""The Daphne that can deny, driven over loopback as its own process."""
