from django.urls import path

from testproject.chat import views

urlpatterns = [
    path("", views.RoomList.as_view(), name="room_list"),
    path("rooms/<slug:slug>/", views.room, name="room"),
    path("remove/<slug:slug>/", views.remove_member, name="remove_member"),
    path("monitor/", views.monitor, name="monitor"),
    path("static/<path:path>", views.static_file),
]
