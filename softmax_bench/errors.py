"""The one exception of the package that a person, not a program, is meant to read."""


class SoftmaxBenchError(ValueError):
    """Bad input. The message says what was wrong and what would be right.

    The command line prints it without a traceback and exits with status 2.
    """
