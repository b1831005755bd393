"""What can go wrong that a user can mend. The command line turns each into one line and an exit code."""


class RiffError(ValueError):
    """Wrong usage or input (exit code 2). The message names the value, what is allowed and the remedy."""

    exit_code = 2


class ModelError(RiffError):
    """A checkpoint that cannot be used: missing, incomplete, corrupt or unsafe (exit code 4)."""

    exit_code = 4


class SystemProblem(RiffError):
    """The machine stands in the way: disk full, folder read-only, no such device (exit code 5)."""

    exit_code = 5
