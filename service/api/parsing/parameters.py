"""Request parameters, from the query or from the fields of a form, which are equivalent.

Unknown names are ignored, as in most frameworks. A misspelled name of a known parameter is rejected, because ignoring
it would give the client a result for other parameters than it has sent.
"""

from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl

from service.errors import BadRequest
from service.inference.classifier import LARGEST_TOP_K

DEFAULT_TOP_K = 5
_MAX_PARAMETERS = 32
_LONGEST_MISTAKE = 32
_SEPARATORS = str.maketrans("", "", "_-. []")
# Names of the parameters in other services, without separators.
_OTHER_NAMES = {
    "top_k": ("k", "top", "topn", "topks", "ktop"),
    "model": ("models", "modelname", "modelid"),
    "label": ("labels", "labelname"),
    "index": ("idx", "labelindex", "indexes"),
    "normalize": ("normalise", "normalized", "normalised", "norm"),
}


def read_query(query: bytes, known: Collection[str]) -> dict[str, str]:
    """Return the parameters of a query, the last one of each name.

    Raises BadRequest for too many parameters, and for a misspelled name.
    """
    if not query:
        return {}
    try:
        parameters = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS))
    except ValueError:
        raise BadRequest(f"The query has more than {_MAX_PARAMETERS} parameters.", code="bad_query") from None
    check_names(parameters, known)
    return parameters


def with_fields(parameters: Mapping[str, str], fields: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """Return the parameters of a query and the fields of a form. Raises BadRequest if their values contradict."""
    check_names(fields, known)
    for name in known:
        if name in fields and parameters.get(name, fields[name]) != fields[name]:
            raise BadRequest(
                f"`{name}` is in the query and in the form, with different values; send it once.", code="bad_query"
            )
    return {**fields, **parameters}


def check_names(given: Collection[str], known: Collection[str]) -> None:
    """Raise BadRequest for a misspelled name of a known parameter."""
    for name in given:
        meant = None if name in known else _meant(name, known)
        if meant is not None:
            raise BadRequest(f"There is no parameter `{name}`; did you mean `{meant}`?", code="unknown_parameter")


def _meant(name: str, known: Collection[str]) -> str | None:
    plain = name.lower().translate(_SEPARATORS)
    if len(name) > _LONGEST_MISTAKE:
        return None
    return next((right for right in known if _is_near(plain, right)), None)


def _is_near(plain: str, right: str) -> bool:
    """Return whether a name has the letters of another in any order, or is its name in other services."""
    return sorted(plain) == sorted(right.translate(_SEPARATORS)) or plain in _OTHER_NAMES[right]


def read_top_k(parameters: Mapping[str, str]) -> int:
    """Return the parameter `top_k`. Raises BadRequest."""
    text = parameters.get("top_k")
    if text is None:
        return DEFAULT_TOP_K
    number = read_number(text)
    if number is None or not 1 <= number <= LARGEST_TOP_K:
        raise BadRequest(f"top_k must be a whole number from 1 to {LARGEST_TOP_K}.", code="bad_top_k")
    return number


def read_number(text: str) -> int | None:
    """Return a text as an integer, or None if it is not one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
