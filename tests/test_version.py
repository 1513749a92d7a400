from importlib import metadata

import skae
from skae._version import STATE_FORMAT


def test_the_package_is_installed_under_its_version():
    assert metadata.version("skae") == skae.__version__


def test_formats_are_counted():
    assert isinstance(STATE_FORMAT, int)
    assert STATE_FORMAT >= 1
