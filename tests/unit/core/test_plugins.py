"""Plugins load by name, and say what is wrong when they do not."""

from __future__ import annotations

import pytest

from modelyard.core.errors import PluginError
from modelyard.core.plugins import load_plugin, plugin_names
from modelyard.jobs.backends.local import LocalBackend

GROUP = "modelyard.test_plugins"


def install(folder, name, points):
    """A distribution with these entry points, as a package manager would leave it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{GROUP}]", *(f"{key} = {value}" for key, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_our_own_backend_uses_the_same_door():
    assert "local" in plugin_names("modelyard.backends")
    assert load_plugin("modelyard.backends", "local") is LocalBackend


def test_names_are_sorted_and_the_object_is_loaded_when_asked_for(site):
    install(site, "one", {"zeta": "json:loads", "alpha": "no_such_module:thing"})
    assert plugin_names(GROUP) == ["alpha", "zeta"]
    assert load_plugin(GROUP, "zeta")("[1]") == [1]


def test_an_unknown_name_lists_the_known(site):
    install(site, "one", {"alpha": "json:loads"})
    with pytest.raises(PluginError, match=r"'beta' \(known: alpha\)"):
        load_plugin(GROUP, "beta")
    with pytest.raises(PluginError, match="known: none"):
        load_plugin(GROUP + ".empty", "beta")


def test_two_packages_under_one_name_are_refused(site):
    install(site, "one", {"alpha": "json:loads"})
    install(site, "two", {"alpha": "json:dumps"})
    with pytest.raises(PluginError, match=r"json:dumps, json:loads"):
        load_plugin(GROUP, "alpha")


@pytest.mark.parametrize("value", ["no_such_module:thing", "json:no_such_name"])
def test_what_does_not_load_says_why(site, value):
    install(site, "one", {"alpha": value})
    with pytest.raises(PluginError, match=r"does not load: .*no_such"):
        load_plugin(GROUP, "alpha")
