"""What users are called in files, tables and messages."""


def user_name(user: int) -> str:
    """Return what tables, folders and messages call a user."""
    return f"user-{user:04d}"
