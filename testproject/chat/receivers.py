"""Who is no member any more is in the room no more: the models are the site's own, so the site says when."""

from django.db.models.signals import m2m_changed
from django.dispatch import receiver

from channels_wsdeny.live import revoke
from testproject.chat.models import Room


@receiver(m2m_changed, sender=Room.members.through)
def end_access(instance, action, reverse, pk_set, **kwargs):
    if action == "pre_clear":
        pk_set = set((instance.rooms if reverse else instance.members).values_list("pk", flat=True))
    elif action != "post_remove":
        return
    rooms = Room.objects.filter(pk__in=pk_set) if reverse else [instance]
    for room in rooms:
        for user in [instance.pk] if reverse else pk_set:
            revoke(user=user, path=f"/ws/rooms/{room.slug}/", reason="Your access has ended.")
