"""The authentication classes of other packages that docs/authentication.md is about."""

DRF = "rest_framework.authentication."
#: For each package its challenge, and whether it raises for wrong credentials, or leaves the client anonymous.
PACKAGES = {
    f"{DRF}TokenAuthentication": ("Token", True),
    f"{DRF}BasicAuthentication": ('Basic realm="api"', True),
    f"{DRF}SessionAuthentication": ("Session", False),
    "rest_framework_simplejwt.authentication.JWTAuthentication": ('Bearer realm="api"', True),
    "knox.auth.TokenAuthentication": ("Token", True),
    "oauth2_provider.contrib.rest_framework.OAuth2Authentication": ('Bearer realm="api"', False),
    "dj_rest_auth.jwt_auth.JWTCookieAuthentication": ('Bearer realm="api"', True),
    "allauth.headless.contrib.rest_framework.authentication.XSessionTokenAuthentication": ("Session", False),
    "ApiToken": ("Bearer", False),
}
