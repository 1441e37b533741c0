"""The two exceptions that reach a person."""


class UserError(ValueError):
    """Something the user can mend. Its text is one plain sentence that names the file or class at fault and
    says what to do; the CLI prints it and exits with 2, the app shows it."""


class Cancelled(Exception):
    """Raised by a progress callback to stop the work it reports on; nothing is left half-written."""
