"""The one error for what a person typed or handed in wrongly: exit code 2, no traceback."""


class BadInput(ValueError):
    """What was found, what was expected, and what to do about it, in one readable text."""

    def __init__(self, found: str, expected: str, remedy: str = "") -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        tail = f"; {remedy}" if remedy else ""
        super().__init__(f"found {found}, expected {expected}{tail}")


class OtherFormat(BadInput):
    """A file or paper of a format that this version of fedkd does not read: newer, or none."""

    def __init__(self, what: str, found: object, reads: int) -> None:
        self.is_newer = type(found) is int and found > reads
        remedy = "fedkd never wrote that one: take the file as it was made"
        if self.is_newer:
            remedy = "a newer fedkd wrote it: install that one here (docs/deploy.md, Updating)"
        shown = str(found) if isinstance(found, int | None) else "no number"
        super().__init__(f"{what} of format {shown}", f"format {reads}", remedy)
