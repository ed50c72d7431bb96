"""The translations of the package."""

import gettext
import re
from io import BytesIO
from pathlib import Path

import django

import channels_wsdeny

PACKAGE, DJANGO = Path(channels_wsdeny.__file__).parent, Path(django.__file__).parent
MARKED = re.compile(r"""\b_\(\s*"([^"]+)"|\{% translate "([^"]+)" %\}""")


def test_every_text_is_translated_here_or_by_django():
    sources = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.html")]
    texts = {found[1] or found[2] for path in sources for found in MARKED.finditer(path.read_text())}
    known = set()
    for app in (PACKAGE, DJANGO / "contrib/admin"):
        catalog = BytesIO((app / "locale/de/LC_MESSAGES/django.mo").read_bytes())
        known |= gettext.GNUTranslations(catalog)._catalog.keys()
    assert len(texts) > 30
    assert texts - known == set()
