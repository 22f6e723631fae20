"""The semi-trusted cloud provider: holds psi, X' and Y (Section III-A)."""
