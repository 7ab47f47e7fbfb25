"""`Config`: the fields of a config.json, read with their type checked, and what was read noted."""

from collections.abc import Mapping
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.printable import show

_MOST = 10**9
_MOST_TIMES = 1000
Names = str | tuple[str, ...]


class Config:
    """A JSON object whose fields are read with their type checked.

    A field is looked for in the file, under each of its names, then among the defaults of the
    model's class. A ``null`` in the file means that the feature is off, whatever the class says.

    Attributes:
        values: of the file.
        defaults: of the class, for what the file leaves out.
        where: what errors call it.
        read: names that were asked for.
        remarks: what was assumed so far.
        layers: of the decoder, once it is known; a list of so many values has one for each.
    """

    def __init__(
        self, values: Mapping[str, Any], where: str, defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.values = values
        self.defaults = defaults or {}
        self.where = where
        self.read: set[str] = set()
        self.remarks: list[str] = []
        self.layers = 0

    def part(self, name: str) -> "Config | None":
        """The object in a field, whose remarks are those of the whole."""
        self.read.add(name)
        found = self.values.get(name)
        if not isinstance(found, Mapping):
            return None
        inner = Config(found, f"{self.where}: {name}")
        inner.remarks, inner.layers = self.remarks, self.layers
        return inner

    def at_layer(self, layer: int) -> "Config":
        """The fields of one layer, where ``per_layer_config`` has some of their own for it."""
        self.read.add("per_layer_config")
        by_layer = self.values.get("per_layer_config")
        own: dict[str, Any] = {}
        for key, fields in by_layer.items() if isinstance(by_layer, Mapping) else ():
            if str(key).isdigit() and int(key) == layer and isinstance(fields, Mapping):
                own |= fields
        if not own:
            return self
        local = Config({**self.values, **own}, self.where, self.defaults)
        local.read, local.remarks, local.layers = self.read, self.remarks, self.layers
        return local

    def remark(self, text: str) -> None:
        """Note something that was assumed, once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def value(self, names: Names) -> Any:
        """The first of these fields that the file has, else that the class has; None if none."""
        names = (names,) if isinstance(names, str) else names
        self.read.update(names)
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        if any(name in self.values for name in names):
            return None
        return next((self.defaults[name] for name in names if name in self.defaults), None)

    def says(self, names: Names) -> bool:
        """Whether the file itself has one of these fields, and not as ``null``."""
        names = (names,) if isinstance(names, str) else names
        return any(self.values.get(name) is not None for name in names)

    def count(self, names: Names, default: int | None = None, layer: int | None = None) -> int:
        """A whole number of at least 0; that of the layer where the field lists one for each.

        Raises:
            BlendplanError: no whole number, or none at all and no default.
        """
        value = self.value(names)
        name = self.named(names)
        if isinstance(value, list) and layer is not None and value:
            value = value[layer] if self._by_layer(name, value) else value[0]
        if value is None:
            if default is None:
                raise BlendplanError(
                    f"{self.where}: {name} is missing; is this the config.json of a language model?"
                )
            return default
        return self.whole(name, value)

    def whole(self, name: str, value: Any) -> int:
        """A value of a field as a whole number of at least 0; 4096.0 is one.

        Raises:
            BlendplanError: anything else.
        """
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST:
            raise BlendplanError(
                f"{self.where}: {name} is {seen(value)}; expected a whole number from 0 "
                f"to {_MOST - 1:,}"
            )
        return value

    def times(self, names: Names, default: float) -> float:
        """A factor, such as of the width of the model; the default for what none can be."""
        value = self.value(names)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if number and 0 < value < _MOST_TIMES else default

    def _by_layer(self, name: str, values: list[Any]) -> bool:
        """Whether a list has a value for each layer; what comes after the last is for drafting."""
        if len(values) >= self.layers:
            return True
        self.remark(
            f"{name} lists {len(values)} values for {self.layers} layers: the first is taken for "
            "all"
        )
        return False

    def flag(self, names: Names, default: bool) -> bool:
        """True or false.

        Raises:
            BlendplanError: anything else.
        """
        value = self.value(names)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise BlendplanError(
                f"{self.where}: {self.named(names)} is {show(value)}; expected true or false"
            )
        return value

    def word(self, names: Names) -> str:
        """A text in small letters; empty where there is none."""
        value = self.value(names)
        return value.lower() if isinstance(value, str) else ""

    def items(self, names: Names) -> list[Any] | None:
        """A list that is not empty; None for anything else."""
        value = self.value(names)
        return value if isinstance(value, list) and value else None

    def words(self, names: Names) -> list[Any] | None:
        """A list that is not empty; None where the field is absent, off or empty.

        Raises:
            BlendplanError: no list.
        """
        value = self.value(names)
        if value is not None and not isinstance(value, list):
            raise BlendplanError(
                f"{self.where}: {self.named(names)} is {seen(value)}; expected a list with a word "
                "for each layer"
            )
        return value or None

    def named(self, names: Names) -> str:
        """The first of these names that the file has, for messages; else the first."""
        names = (names,) if isinstance(names, str) else names
        return next((name for name in names if self.values.get(name) is not None), names[0])


def seen(value: object) -> str:
    """A value in a message, cut to what fits a line."""
    return repr(value[:40]) if isinstance(value, str) else show(value)
