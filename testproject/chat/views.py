import mimetypes
from pathlib import Path

from django.contrib.staticfiles import finders
from django.db.models import Exists, OuterRef
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST
from django.views.generic import ListView

from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.policies import IsStaff
from testproject.chat.models import Room
from testproject.chat.resolvers import room_from_url


@login_required
class RoomList(ListView):
    def get_queryset(self):
        mine = Room.members.through.objects.filter(room=OuterRef("pk"), user=self.request.user)
        return Room.objects.annotate(is_member=Exists(mine))


@login_required
def room(request, slug):
    """The page around a room's socket.

    Everybody who is logged in may see it, for it holds no messages: they come through the socket,
    and that is for members.
    """
    room = room_from_url(request)
    members = room.members.all() if request.user.is_staff else []
    return render(request, "chat/room.html", {"room": room, "members": members})


@require(IsStaff())
@require_POST
def remove_member(request, slug):
    """Take a member out of a room; `testproject.chat.receivers` ends the sockets."""
    room = room_from_url(request)
    room.members.remove(get_object_or_404(room.members, username=request.POST.get("username")))
    return redirect(room)


@require(IsStaff())
def monitor(request):
    return render(request, "chat/monitor.html")


@public
def static_file(request, path):
    """Serve the style sheet and the scripts, on whichever server the demo runs.

    A real site leaves this to its web server.
    """
    found = finders.find(path)
    if found is None:
        raise Http404
    content_type, _encoding = mimetypes.guess_type(path)
    return HttpResponse(Path(found).read_bytes(), content_type=content_type)
