"""The exceptions that a user's mistake ends in."""


class UserError(Exception):
    """A mistake in what the user gave, told in one line: what was got, where, what to do.

    The command line prints the message and exits with code 2; nothing half-written is left behind.
    """


class RecBoleMissingError(UserError, ImportError):
    """RecBole is not installed, or another version than the one that this package mends."""
