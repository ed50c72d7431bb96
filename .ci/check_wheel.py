"""Run beside an installed wheel, outside the tree: imports it with only Django and Channels there."""

from importlib.metadata import distribution, distributions
from pathlib import Path

import channels_wsdeny
from channels_wsdeny import decorators, policies

assert Path(channels_wsdeny.__file__).parent.parent.name == "site-packages", channels_wsdeny.__file__

wheel = distribution("channels-wsdeny")
assert wheel.version == channels_wsdeny.__version__, wheel.version
files = {str(file) for file in wheel.files}
for shipped in (
    "py.typed",
    "contrib/admin/templates/channels_wsdeny/admin/report.html",
    "management/commands/runserver.py",
    "static/channels_wsdeny/wsdeny.js",
):
    assert f"channels_wsdeny/{shipped}" in files, f"{shipped} is not in the wheel"
strays = {file.split("/")[0] for file in files if file.startswith(("tests/", "testproject/", "benchmarks/"))}
assert not strays, f"The wheel ships {strays}"

installed = {each.metadata["Name"].lower() for each in distributions()}
assert "daphne" not in installed, installed
assert decorators.public is not None
assert repr(policies.IsStaff() & ~policies.InGroup("x")) == "IsStaff() & ~InGroup('x')"
print(f"channels-wsdeny {wheel.version} imports with {', '.join(sorted(installed))}")
