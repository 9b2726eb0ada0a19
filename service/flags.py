"""The flags of `serve-resnet`, one for each setting, by the command line of pydantic-settings.

The texts are not those of pydantic-settings: placeholders and defaults in the help, and errors of one line.
"""

import difflib
import sys
from argparse import Action, ArgumentParser, Namespace
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import ValidationError
from pydantic_settings import CliSettingsSource

from service.settings import ENVIRONMENT_PREFIX, Settings, expected_value
from service.version import describe_version

# Flags of Triton, TorchServe and KServe's runtimes, without dashes and underscores, and the flag that does the same.
_FLAGS_OF_OTHERS = {
    **dict.fromkeys(("modelrepository", "modelstore", "modelsdir", "modeldir"), "--models"),
    "modelname": "--model-name",
    "httpport": "--port",
    "httpaddress": "--host",
    "metricsport": "--admin-port",
    "metricsaddress": "--admin-host",
}
_WITHOUT_DASHES = str.maketrans("", "", "-_")


class _Parser(ArgumentParser):
    def error(self, message: str, advice: str = "serve-resnet --help lists the options") -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {advice}\n")


def read_settings(arguments: list[str]) -> Settings:
    """Return the settings of these arguments and the environment; an argument wins over a variable.

    Exits with one line: 2 for arguments that are no flags, 1 for a flag of another server or an invalid value.
    """
    description = "Serve the models in a folder over HTTP."
    parser = _Parser("serve-resnet", "%(prog)s [OPTIONS]", description, allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="Print version and commit.")
    source: CliSettingsSource[ArgumentParser] = CliSettingsSource(
        Settings,
        cli_kebab_case=True,
        cli_parse_none_str="\0",  # no argument has this character: every text is a value
        root_parser=parser,
        parse_args_method=_parse,
        add_argument_method=_add_argument,
    )
    source.env_ignore_empty = False  # an empty variable counts as unset, an empty flag is an invalid value
    try:
        return Settings(_cli_settings_source=source(args=arguments))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0])
        fail(f"{flag_of(name)} ({_variable(name)}) must be {expected_value(name)}; it is {first['input']!r}")


def _parse(parser: _Parser, arguments: list[str]) -> Namespace:
    if "--version" in arguments:  # whatever else is there
        sys.stdout.write(f"{describe_version()}\n")
        parser.exit()
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse(parser, unknown[0].partition("=")[0])
    return namespace


def _refuse(parser: _Parser, given: str) -> NoReturn:
    """Exit for an argument that is no flag, and name the flag that is probably meant."""
    if not given.startswith("-"):
        parser.error(f"unexpected argument: {given}")
    if (ours := _FLAGS_OF_OTHERS.get(given.translate(_WITHOUT_DASHES))) is not None:
        fail(f"there is no option {given}; use {ours}")
    for close in difflib.get_close_matches(given, map(flag_of, Settings.model_fields), n=1):
        parser.error(f"there is no option {given}", f"use {close}")
    parser.error(f"there is no option {given}")


def _add_argument(parser: ArgumentParser, flag: str, *, dest: str, default: Any, **_: Any) -> Action:
    """Add one flag with the texts of its setting, in place of those that pydantic-settings makes."""
    return parser.add_argument(flag, dest=dest, default=default, metavar=_placeholder(dest), help=_help(dest))


def _placeholder(name: str) -> str:
    """Return the placeholder of a value in the help: its choices, or VALUE."""
    kind = Settings.model_fields[name].annotation
    return "|".join(get_args(kind)) if get_origin(kind) is Literal else "VALUE"


def _help(name: str) -> str:
    field = Settings.model_fields[name]
    default = "" if field.default is None else f" [default: {field.default}]"
    return f"{field.description}{default} [{_variable(name)}]".replace("%", "%%")


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def fail(message: str) -> NoReturn:
    """Exit with 1 and one line for an error that an operator can fix."""
    raise SystemExit(f"serve-resnet: {message}")
