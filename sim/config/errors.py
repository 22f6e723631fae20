"""The error that a person sees as one line."""


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one line that says what, where, and what would be right."""


def one_line(error: Exception) -> str:
    """Return what an error says, without line breaks."""
    return " ".join(str(error).split())
