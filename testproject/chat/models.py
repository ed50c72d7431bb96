import hashlib

from django.conf import settings
from django.db import models
from django.urls import reverse


class Room(models.Model):
    """A place to talk. Members read and write; `testproject.chat.backends` says who else may."""

    name = models.CharField(max_length=50, unique=True)
    slug = models.SlugField(unique=True)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="rooms", blank=True)

    class Meta:
        ordering = ("name",)
        permissions = (("post_room", "Can write in room"),)

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("room", args=[self.slug])

    @property
    def group_name(self):
        """The channel layer's group of all members whose socket to this room is open."""
        return f"room.{self.slug}"


class Token(models.Model):
    """What a program sends instead of a session. Its secret is shown once; the table has its digest."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="tokens")
    digest = models.CharField(max_length=64, unique=True)

    def __str__(self):
        return f"a token of {self.user}"

    @staticmethod
    def digest_of(secret):
        return hashlib.sha256(secret.encode()).hexdigest()


class Message(models.Model):
    room = models.ForeignKey(Room, on_delete=models.CASCADE, related_name="messages")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="messages")
    text = models.CharField(max_length=1000)
    sent_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self):
        return f"{self.author}: {self.text}"

    def as_event(self):
        """What a socket sends of this message."""
        return {
            "type": "message",
            "id": self.pk,
            "room": self.room.slug,
            "author": self.author.get_username(),
            "text": self.text,
            "sent_at": self.sent_at.isoformat(),
        }
