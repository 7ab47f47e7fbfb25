"""`Record`: a folder of measurements that says what they are of, and is continued later."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from blendplan.checks.json_files import differing, parse_json_object, read_text
from blendplan.errors import BlendplanError
from blendplan.whole_file import made_folder, replacing

_HINT = "give another -o, or move it away"


class RecordKind(NamedTuple):
    """Records of one kind.

    Attributes:
        title: what messages call one.
        form: its ``format``, with a version.
        summary: name of the JSON file with all that was found.
        holds: what it must hold beside its identity, by type.
    """

    title: str
    form: str
    summary: str
    holds: Mapping[str, type]

    def earlier(self, folder: Path) -> dict[str, Any]:
        """What the summary in a folder says; empty where there is none.

        Raises:
            BlendplanError: the folder holds something else.
        """
        path = folder / self.summary
        if not path.exists():
            if folder.is_dir() and any(folder.iterdir()):
                raise BlendplanError(f"{folder} holds other files, and no {self.title}; {_HINT}")
            return {}
        values = parse_json_object(read_text(path, str(path), _HINT), str(path))
        parts = {"identity": dict, **self.holds}
        whole = all(isinstance(values.get(name), kind) for name, kind in parts.items())
        if values.get("format") != self.form or not whole:
            raise BlendplanError(f"{path} is no summary of a {self.title}; {_HINT}")
        return dict(values)


class Record:
    """A folder with a summary, which is written whole whenever something was found.

    Args:
        kind: of the record.
        path: of the folder, which is made where it is not there.
        identity: what the measurements are of, JSON values by names that a user knows.

    Attributes:
        path: of the folder.
        values: all that was found so far, as in the summary.

    Raises:
        BlendplanError: the folder cannot be made, or holds another record or something else.
    """

    def __init__(self, kind: RecordKind, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._kind = kind
        same: dict[str, Any] = json.loads(json.dumps(identity))
        earlier = kind.earlier(made_folder(path))
        before = earlier.get("identity", same)
        changed = differing(same, before)
        if changed:
            raise BlendplanError(
                f"{path} holds another {kind.title} ({', '.join(changed)} changed since); {_HINT}"
            )
        self.values: dict[str, Any] = {"format": kind.form, "identity": same, **earlier}

    @property
    def summary(self) -> Path:
        """All that was found, as JSON."""
        return self.path / self._kind.summary

    def write(self) -> None:
        """Write the summary, whole or not at all."""
        with replacing(self.summary) as temporary:
            temporary.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")
