"""What the tasks of a cluster tell, kept until the driver asks: a module that loads nothing, so that it starts soon."""


class Mailbox:
    """An actor's state: letters, which it does not open."""

    def __init__(self) -> None:
        self.letters: list[bytes] = []

    def put(self, letter: bytes) -> None:
        self.letters.append(letter)

    def take(self) -> list[bytes]:
        """All letters since the last call, in the order in which they came."""
        letters, self.letters = self.letters, []
        return letters
