"""What ends a run with a line for the user."""


class Refused(Exception):
    """Nothing can be measured or shown, and why."""


class Failed(Exception):
    """One job did not do its work under one allocator; the others go on."""
