from django.urls import path

from testproject.chat import consumers

websocket_urlpatterns = [
    path("ws/rooms/<slug:slug>/", consumers.ChatConsumer.as_asgi()),
    path("ws/monitor/", consumers.MonitorConsumer.as_asgi()),
    path("ws/status/", consumers.StatusConsumer.as_asgi()),
    path("ws/knock/", consumers.KnockConsumer.as_asgi()),
]
