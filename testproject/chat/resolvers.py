"""Which object a permission is asked for. Views and consumers name the same function."""

from django.shortcuts import get_object_or_404

from testproject.chat.models import Room


def room_from_url(request):
    return get_object_or_404(Room, slug=request.resolver_match.kwargs["slug"])
