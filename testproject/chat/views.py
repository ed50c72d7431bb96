import mimetypes
from pathlib import Path

from django.contrib.staticfiles import finders
from django.db.models import Exists, OuterRef
from django.http import Http404, HttpResponse
from django.shortcuts import render
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
    return render(request, "chat/room.html", {"room": room_from_url(request)})


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
