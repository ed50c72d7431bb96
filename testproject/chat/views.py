import mimetypes
from pathlib import Path

from django.contrib.auth import get_user_model
from django.contrib.staticfiles import finders
from django.db.models import Exists, OuterRef
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST
from django.views.generic import ListView

from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.policies import IsStaff
from testproject.chat.models import Room
from testproject.chat.resolvers import room_from_url

memberships = Room.members.through.objects.all()


@login_required
class RoomList(ListView):
    def get_queryset(self):
        mine = memberships.filter(room=OuterRef("pk"), user=self.request.user)
        return Room.objects.annotate(is_member=Exists(mine))


@login_required
def room(request, slug):
    """The page around a room's socket.

    All users who are logged in may see it, for it holds no messages: they come through the socket,
    and that is for members.
    """
    room = room_from_url(request)
    is_member = Exists(memberships.filter(room=room, user=OuterRef("pk")))
    people = get_user_model().objects.annotate(is_member=is_member).order_by("username")
    return render(request, "chat/room.html", {"room": room, "people": people})


@require(IsStaff())
@require_POST
def change_members(request, slug):
    """Add a member to a room, or remove one, whose sockets `testproject.chat.receivers` ends."""
    room = room_from_url(request)
    users = get_user_model().objects
    room.members.add(*users.filter(username=request.POST.get("add")))
    room.members.remove(*users.filter(username=request.POST.get("remove")))
    return redirect(room)


@require(IsStaff())
def monitor(request):
    return render(request, "chat/monitor.html")


@public
def try_it(request):
    return render(request, "chat/try.html")


@public
def static_file(request, path):
    """Serve the style sheet and the scripts, on whichever server the demo runs.

    A real site leaves this to its web server.
    """
    found = finders.find(path)
    if found is None or not Path(found).is_file():
        raise Http404
    content_type, _encoding = mimetypes.guess_type(path)
    return HttpResponse(Path(found).read_bytes(), content_type=content_type)
