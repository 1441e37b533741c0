"""The exceptions that the command line and the app handle."""


class UserError(ValueError):
    """An error that the user can correct. Its text is one sentence that names the file or class at fault and says what
    to do; the CLI prints it and exits with 2, the app shows it."""


class Cancelled(Exception):
    """Raised by a progress callback to stop the work that it reports on; no incomplete result is left."""
