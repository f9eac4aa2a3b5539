"""Errors that a user can mend: one line that names the thing and says what to do."""


class FedlitError(ValueError):
    """Bad input or a state the run cannot go on from. The message names the file, field or client, and the mend."""
