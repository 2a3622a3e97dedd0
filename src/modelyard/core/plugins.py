"""Plugins by entry points: one group a seam, loaded when asked for, failing loudly."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from modelyard.core.errors import PluginError


def plugin_names(group: str) -> list[str]:
    """The names registered in a group, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def load_plugin(group: str, name: str) -> Any:
    """The object registered under a name.

    Raises:
        PluginError: There is none, there are several, or it does not load.
    """
    points = list(entry_points(group=group, name=name))
    distinct = {point.value for point in points}
    if not points:
        known = ", ".join(plugin_names(group)) or "none"
        raise PluginError(
            f"{group}: nothing is registered as {name!r} (known: {known}); install the package that has it"
        )
    if len(distinct) > 1:
        raise PluginError(
            f"{group}: {name!r} is registered as {', '.join(sorted(distinct))}; uninstall all but one"
        )
    try:
        return points[0].load()
    except Exception as error:
        raise PluginError(
            f"{group}: {name!r} ({points[0].value}) does not load: {error}; reinstall its package"
        ) from error
