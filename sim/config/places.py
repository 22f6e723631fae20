"""Where things are kept on this machine."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return where data sets and trained classifiers are kept: ``$VEILSIM_CACHE``, or under the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("VEILSIM_CACHE") or f"{base}/veilsim").expanduser().resolve()
