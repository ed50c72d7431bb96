"""An app with a user model of its own, whose primary key is a UUID."""
