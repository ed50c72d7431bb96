from django.contrib.auth.backends import BaseBackend

from testproject.chat.models import Room


class RoomBackend(BaseBackend):
    """Permissions on single rooms: members read and write, staff read.

    Asked for every object permission, beside Django's `ModelBackend`, which knows none.
    """

    def has_perm(self, user_obj, perm, obj=None):
        if not isinstance(obj, Room) or not user_obj.is_active:
            return False
        if perm == "chat.view_room" and user_obj.is_staff:
            return True
        return perm in ("chat.view_room", "chat.post_room") and obj.members.filter(pk=user_obj.pk).exists()
