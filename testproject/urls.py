from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from channels_wsdeny.decorators import public
from channels_wsdeny.views import ticket

urlpatterns = [
    path("login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", public(LogoutView.as_view()), name="logout"),
    path("ticket/", ticket, name="ticket"),
    path("admin/", admin.site.urls),
    path("", include("testproject.chat.urls")),
]

handler400 = "channels_wsdeny.views.bad_request"
handler403 = "channels_wsdeny.views.permission_denied"
handler404 = "channels_wsdeny.views.page_not_found"
handler500 = "channels_wsdeny.views.server_error"
