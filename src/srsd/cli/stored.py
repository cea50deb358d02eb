"""What the daemon's store of addresses says to srsctl, which never changes it."""

from __future__ import annotations

import os

from srsd.address_store import UNAVAILABLE, UNKNOWN, Keep, Recall, StoreError, recalled
from srsd.daemon.address_file import AddressFile
from srsd.daemon.files import address_file_path
from srsd.wire.answer import Answer


class StoreView:
    """Settles answers from what is stored."""

    def __init__(self, state_directory: str) -> None:
        self._path = address_file_path(state_directory)
        self.remarks: list[str] = []  # what is to be said beside the answers, in sentences

    def settle(self, answer: Answer | Keep | Recall) -> Answer:
        """Give the answer of the daemon, but store nothing."""
        if isinstance(answer, Answer):
            return answer
        try:
            stored = self._look_up(answer.token)
        except StoreError as error:
            self.remarks.append(f"{self._path} {error}")
            return answer.answer if isinstance(answer, Keep) else UNAVAILABLE
        if isinstance(answer, Recall):
            return UNKNOWN if stored is None else recalled(stored)
        if stored is None:
            self.remarks.append(
                "not stored yet: the daemon stores it when a sender is rewritten, srsctl does not"
            )
        return answer.answer

    def _look_up(self, token: bytes) -> bytes | None:
        """Give what is stored under a token. Raises StoreError."""
        if not os.path.lexists(self._path):
            return None
        with AddressFile(self._path, read_only=True) as file:
            return file.recall(token)
