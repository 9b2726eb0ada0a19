"""Route names for metrics and logs: the path, or its template, so that the number of labels is bounded."""

import re
from collections.abc import Iterable

OTHER = "other"


class RouteNames:
    """Maps a request's path to a route of the application: `/models`, `/v2/models/{model}/infer`."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._plain = frozenset(path for path in paths if "{" not in path)
        self._templates = [path for path in dict.fromkeys(paths) if "{" in path]
        # One group for each template; `{rest:path}` matches slashes, any other parameter does not.
        self._pattern = re.compile("|".join(f"({_pattern_of(path)})" for path in self._templates) or "(?!)")

    def name_of(self, path: str) -> str:
        """Return the path itself, its template, or `other`."""
        if path in self._plain:
            return path
        match = self._pattern.fullmatch(path)
        return OTHER if match is None or match.lastindex is None else self._templates[match.lastindex - 1]


def _pattern_of(template: str) -> str:
    parts = re.split(r"(\{[^}]+\})", template)
    return "".join(_part(part) if part.startswith("{") else re.escape(part) for part in parts)


def _part(parameter: str) -> str:
    return ".*" if parameter.endswith(":path}") else "[^/]+"
