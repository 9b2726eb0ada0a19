"""The one failure that an export expects."""


class ExportError(Exception):
    """The export cannot be done as requested. The message is one line that names the next step."""
