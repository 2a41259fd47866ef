"""What stands in for a run's writer in the processes of a training that write nothing."""

from pathlib import Path
from typing import Any

from fieldmark import durable
from fieldmark.studies.run import RunWriter


class Onlooker(RunWriter):
    """Writes nothing: for the processes of a training beside the one that writes its run."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.manifest = manifest

    def log(self, line: str) -> None:
        """Nothing."""

    def predictions(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def update_manifest(self, **fields: Any) -> None:
        """Nothing on the disk."""
        self.manifest |= fields

    def close(self) -> None:
        """Nothing."""

    def __exit__(self, *_: object) -> None:
        """Nothing."""

    def _append(self, record: dict[str, durable.JSON]) -> None:
        pass
