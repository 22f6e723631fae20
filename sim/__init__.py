"""The Flower app: configuration, messages, exchange, server and client apps, command line, results."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.report.results import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import, and whoever imports a module of the package imports the package first.
    if name == "load":
        from sim.report.results import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
