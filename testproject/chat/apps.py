from django.apps import AppConfig


class ChatConfig(AppConfig):
    name = "testproject.chat"

    def ready(self):
        from testproject.chat import receivers  # noqa: F401, PLC0415 - needs the models
