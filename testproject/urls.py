from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from channels_wsdeny.decorators import public

urlpatterns = [
    path("login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", public(LogoutView.as_view()), name="logout"),
    path("", include("testproject.chat.urls")),
]
