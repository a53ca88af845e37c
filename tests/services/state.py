"""Which servers run: one small file each in .services/, so that those of a killed run are found."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.services.process import Proc

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".services"


@dataclass(frozen=True)
class Record:
    kind: str
    directory: str
    ports: list[int]
    processes: list[Proc]
    # Whoever stops the server. None: it stays until `make services-stop`.
    owner: Proc | None

    def path(self, folder: Path) -> Path:
        return folder / f"{Path(self.directory).name}.json"

    def write(self, folder: Path = FOLDER) -> None:
        folder.mkdir(exist_ok=True)
        target = self.path(folder)
        draft = target.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self)))
        draft.rename(target)  # nobody reads half a record

    def forget(self, folder: Path = FOLDER) -> None:
        self.path(folder).unlink(missing_ok=True)
        with suppress(OSError):  # no folder, or other servers are in it
            folder.rmdir()

    @property
    def shared(self) -> bool:
        return self.owner is None

    @property
    def orphaned(self) -> bool:
        return self.owner is not None and not self.owner.alive

    @property
    def alive(self) -> bool:
        return bool(self.processes) and all(process.alive for process in self.processes)


def records(folder: Path = FOLDER) -> list[Record]:
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            raw = json.loads(path.read_text())
        except FileNotFoundError:  # its owner has just stopped it
            continue
        raw["processes"] = [Proc(*process) for process in raw["processes"]]
        raw["owner"] = Proc(*raw["owner"]) if raw["owner"] else None
        found.append(Record(**raw))
    return found
