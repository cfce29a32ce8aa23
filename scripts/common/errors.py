"""The one exception type that users see as a plain message."""


class UserError(Exception):
    """Something the user can mend: the message names the file, line or option, and the fix.

    Scripts end with this message alone, without a stack trace (see ``scripts.common.job``).
    """
