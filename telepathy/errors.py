"""The one exception that a user is meant to read."""


class TelepathyError(Exception):
    """Something the user can mend: one sentence that names the thing and the remedy.

    Jobs print it without a traceback; library users can catch it like any exception.
    """
