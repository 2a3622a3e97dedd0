"""What an entry point of the group `modelyard.tuners` names: how a searcher is made, and what it can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec

from modelyard.core.errors import TuneError
from modelyard.core.faults import Faults, Section
from modelyard.core.plugins import load_plugin
from modelyard.tuning.searcher import Searcher, SearcherSettings

#: Options of an algorithm by name.
Options = tuple[tuple[str, object], ...]


def no_options(_section: Section) -> Options:
    """Of an algorithm that has none."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """A factory of searchers: call it with the settings."""

    name: str
    make: Callable[[SearcherSettings], Searcher]
    # Reads the options of this algorithm, key by key; the caller closes the section.
    options: Callable[[Section], Options] = no_options
    # Whether there may be more than one objective.
    several: bool = False
    # Whether it stops trials at rungs, or promotes them.
    rungs: bool = False
    # Options that do not make another study: one that is there goes on when they are changed.
    changeable: frozenset[str] = frozenset()

    def __call__(self, settings: SearcherSettings) -> Searcher:
        """A searcher with these settings.

        Raises:
            TuneError: It cannot work with as many objectives, or without rungs; something it needs is not
                installed.
        """
        if len(settings.directions) > 1 and not self.several:
            raise TuneError(
                f"{self.name}: there are {len(settings.directions)} objectives and it works with one; "
                "use bayesian, nsga2 or tpe, or name one objective"
            )
        if self.rungs and settings.rungs is None:
            raise TuneError(
                f"{self.name}: it compares trials at their steps and no rungs are given; "
                "say how many steps a trial has, or use tpe"
            )
        return self.make(settings)

    def configured(self, options: Mapping[str, object], settings: SearcherSettings, *, file: str) -> Searcher:
        """A searcher with these settings and the options of a file.

        Raises:
            DocumentError: An option is unknown or out of range.
            TuneError: As when it is called.
        """
        faults = Faults(file=file)
        section = Section(dict(options), faults=faults)
        read = self.options(section)
        section.close()
        faults.raise_if_any()
        return self(replace(settings, options=read))

    def decisive(self, options: Mapping[str, object]) -> dict[str, object]:
        """Those of the options that make another study when they are changed."""
        return {name: value for name, value in options.items() if name not in self.changeable}


def algorithm_of(name: str) -> Algorithm:
    """The algorithm of this name.

    Raises:
        TuneError: It is something else, or Optuna is not installed.
        PluginError: There is none.
    """
    if find_spec("optuna") is None:
        raise TuneError("tuning needs optuna; pip install 'modelyard[tune]'")
    found: Algorithm = load_plugin("modelyard.tuners", name)
    if not isinstance(found, Algorithm):
        raise TuneError(f"{name}: is no algorithm of a search; name another")
    return found
