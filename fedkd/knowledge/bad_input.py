"""The one error for what a person typed or handed in wrongly: exit code 2, no traceback."""


class BadInput(ValueError):
    """What was found, what was expected, and what to do about it, in one readable text."""

    def __init__(self, found: str, expected: str, remedy: str = "") -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        tail = f"; {remedy}" if remedy else ""
        super().__init__(f"found {found}, expected {expected}{tail}")
