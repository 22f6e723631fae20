"""The error that a person sees as one line."""

from collections.abc import Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one line that says what, where, and what would be right."""


@contextmanager
def in_our_words(source: object) -> Iterator[None]:
    """Turn whatever a library raises of a config in a block into one line.

    Raises:
        ConfigError: ``source``, and what was raised.
    """
    try:
        yield
    except ConfigError as error:
        if str(error).startswith(f"{source}: "):
            raise
        raise ConfigError(f"{source}: {error}") from error
    except MemoryError as error:
        raise ConfigError(f"{source}: it takes more memory than there is") from error
    except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{source}: {one_line(error) or type(error).__name__}") from error


def of_system(error: OSError, place: object = "") -> str:
    """Return in one line what the system says, after the file that it names, or else ``place``."""
    where = error.filename or place
    return f"{where}: {error.strerror or one_line(error)}" if where else error.strerror or one_line(error)


def one_line(error: Exception) -> str:
    """Return what an error says, without line breaks."""
    return " ".join(str(error).split())
