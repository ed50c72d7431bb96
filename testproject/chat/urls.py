from django.urls import path

from testproject.chat import views

urlpatterns = [
    path("", views.RoomList.as_view(), name="room_list"),
    path("rooms/<slug:slug>/", views.room, name="room"),
    path("members/<slug:slug>/", views.change_members, name="change_members"),
    path("monitor/", views.monitor, name="monitor"),
    path("try/", views.try_it, name="try_it"),
    path("static/<path:path>", views.static_file),
]
