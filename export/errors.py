"""The expected failure of an export."""


class ExportError(Exception):
    """The export cannot be done as requested. The message is one line that names the next step."""
