"""The errors that kbl raises for what a user can mend."""


class UserError(Exception):
    """A mistake in what the user gave (a recipe, a file, a missing package); its text says what to do.

    The command line prints the text in one line and exits with code 2, without a traceback.
    """


class DivergenceError(RuntimeError):
    """Training ran away: the loss is not finite, or the likelihood term grows without end."""
