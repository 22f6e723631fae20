"""Where things are kept on this machine."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return where data sets and trained classifiers are kept: ``$VEILSIM_CACHE``, or under the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("VEILSIM_CACHE") or f"{base}/veilsim").expanduser().resolve()


def state_folder() -> Path:
    """Return where the nodes of a deployment keep their state by default: ``veilsim`` in the user's state folder."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(f"{base}/veilsim").expanduser().resolve()
