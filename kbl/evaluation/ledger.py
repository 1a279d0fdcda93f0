"""What an evaluation has found so far, written batch by batch, so that it can go on after it was cut off."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kbl.errors import UserError

Record = dict[str, Any]


class Ledger:
    """Records by key, in memory and, given a path, in a file of JSON lines that is complete after each of them.

    Args:
        path: the file; None keeps nothing beyond this process.
        fingerprint: what the records depend on; a file with another one is not gone on with.
        resume: go on with the file where there is one; else it is begun anew.

    Raises:
        UserError: the file to go on with is of another evaluation.
    """

    def __init__(self, path: Path | None, fingerprint: str, resume: bool = False) -> None:
        self.path = path
        self._records: dict[str, Record] = {}
        if path is None:
            return
        if resume and path.is_file():
            self._read(path, fingerprint)
        if not self._records:
            path.write_text(json.dumps({"fingerprint": fingerprint}) + "\n", encoding="utf-8")

    def _read(self, path: Path, fingerprint: str) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        whole = b"".join(line for line in lines if line.endswith(b"\n"))
        if not whole:  # cut off before the header was written
            return
        header, *records = [json.loads(line) for line in whole.splitlines()]
        if header != {"fingerprint": fingerprint}:
            raise UserError(
                f"{path} is of another evaluation (another network, other weights, images, attacks, seed or batch "
                "size): evaluate with the same ones, or without --resume to begin anew"
            )
        if records:
            os.truncate(path, len(whole))  # the last line may have been cut off
            self._records = {record.pop("key"): record for record in records}

    def record(self, key: str, find: Callable[[], Record]) -> Record:
        """Return the record of a key: the one that is there, or what `find` finds, written at once."""
        if key not in self._records:
            record = find()
            if self.path is None:
                return record
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, **record}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._records[key] = record
        return self._records[key]
