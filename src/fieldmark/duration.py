"""How long something lasts, said once in the unit a person thinks in."""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import PlainSerializer, PlainValidator

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?|%)\s*")


@dataclass(frozen=True)
class Duration:
    """A length of training, said once as steps, epochs or per cent of its stage."""

    amount: float
    unit: Literal["steps", "epochs", "%"]

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read `20000 steps`, `60 epochs` or `75 %`.

        Raises:
            ValueError: `text` is none of these, or not above zero.
        """
        if isinstance(text, cls):
            return text
        match = _DURATION.fullmatch(text) if isinstance(text, str) else None
        if match is None or float(match[1]) == 0:
            raise ValueError(f"write it as `500 steps`, `60 epochs` or `75 %`, got {text!r}.")
        unit = match[2] if match[2] == "%" else match[2].rstrip("s") + "s"
        return cls(float(match[1]), unit)  # type: ignore[arg-type]

    def steps(self, *, steps_per_epoch: int, stage_steps: int | None = None) -> int:
        """This duration in optimiser steps, at least one.

        Args:
            steps_per_epoch: optimiser steps in one pass over the training photos.
            stage_steps: the stage's length in steps, which per cent is taken of.
        """
        if self.unit == "%":
            if stage_steps is None:
                raise ValueError("A stage's own length can't be given in per cent.")
            return max(1, math.floor(self.amount / 100 * stage_steps + 0.5))
        scale = steps_per_epoch if self.unit == "epochs" else 1
        return max(1, math.floor(self.amount * scale + 0.5))

    def __str__(self) -> str:
        """As recipes are written, and hashed."""
        return f"{self.amount:g} {self.unit}"

    @property
    def words(self) -> str:
        """As people read it: `1 epoch`, `2 epochs`."""
        return str(self).removesuffix("s") if str(self).startswith("1 ") else str(self)


DurationField = Annotated[
    Duration, PlainValidator(Duration.parse), PlainSerializer(str, return_type=str)
]
