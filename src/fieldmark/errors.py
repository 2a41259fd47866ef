"""Everything that can go wrong and is not a defect of Fieldmark, as one tree.

    FieldmarkError
    ├── SettingError        (also a ValueError)
    │   └── RecipeError
    ├── DataError
    ├── WeightsError
    ├── TrainingError
    ├── RecordError
    └── DiskError           (also an OSError)

The command line prints the message of any of these in place of a traceback, so a message says
what was given, what is allowed and what to do next.
"""


class FieldmarkError(Exception):
    """Something the user can mend; the message says how."""


class SettingError(FieldmarkError, ValueError):
    """An argument is out of range or does not fit the others."""


class RecipeError(SettingError):
    """A recipe can't be used; the message lists all of its mistakes at once."""


class DataError(FieldmarkError):
    """Photos, labels or splits are missing, unreadable or contradict each other."""


class WeightsError(FieldmarkError):
    """Pretrained weights are missing, out of reach or do not fit the model."""


class TrainingError(FieldmarkError):
    """Training can't go on, or went on in a way that makes its numbers worthless."""


class RecordError(FieldmarkError):
    """A file Fieldmark wrote is damaged, or a folder is not what its name says."""


class DiskError(FieldmarkError, OSError):
    """The disk has no room for what is to be written."""


def count_of(count: int, one: str, many: str = "") -> str:
    """So many of something in a message: `1 photo`, `3 photos`; `many` where an s is not enough."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
