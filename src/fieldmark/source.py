"""Where the photos come from and how they are split: the first half of a recipe's `data`."""

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fieldmark.checked_yaml import Section


def fill_in(path: str, override: str) -> str:
    """`path` with `~` and `$NAME` filled in; `override` is how to give it on the command line."""
    filled = os.path.expandvars(str(Path(path).expanduser()))
    missing = re.search(r"\$\{?(\w+)", filled)
    if missing:
        raise ValueError(
            f"the environment variable {missing[1]} is not set. "
            f"Set it, or give {override} on the command line."
        )
    return filled


def _one_for_all(value: object) -> object:
    return {"all": value} if isinstance(value, str) else value


def _catches_one_group(pattern: str) -> str:
    try:
        count = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}.") from None
    if count != 1:
        raise ValueError(
            f"needs one pair of brackets around what photos have in common, as in `([^/]+)-\\d+`; "
            f"got {count} in {pattern!r}."
        )
    return pattern


@cache
def _content_hash(path: Path, size: int, mtime_ns: int) -> str:
    del size, mtime_ns  # where they changed, the file is read again
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(paths: Iterable[str]) -> dict[str, str]:
    """Content hash of each file, 64 hex digits, by path; those that can't be read are left out."""
    found = {}
    for path in paths:
        with suppress(OSError):
            now = Path(path).stat()
            found[path] = _content_hash(Path(path).absolute(), now.st_size, now.st_mtime_ns)
    return found


Filled = Annotated[str, AfterValidator(lambda path: fill_in(path, "its key=PATH"))]
Files = Annotated[
    dict[Literal["all", "train", "val", "test"], Filled], BeforeValidator(_one_for_all)
]


class Source(Section):
    """The photos and their splits; all of it is only read."""

    folder: Annotated[str, AfterValidator(lambda path: fill_in(path, "data.folder=PATH"))]
    """The labelled photos; `~` and `$NAME` are filled in."""
    layout: Literal["auto", "tree", "splits", "cub"] = "auto"
    """A folder per class, such trees in `train`, `val` and `test`, or the layout of CUB-200."""
    lists: Files = Field(default_factory=dict)
    """Files that list the photos instead: one, or one each for `train`, `val` and `test`."""
    group: str | None = None
    """Column of a table in `lists`; photos with one value stay together in every cut."""
    group_pattern: Annotated[str, AfterValidator(_catches_one_group)] | None = None
    """Regular expression that catches the group in a photo's path below `folder`."""
    corrections: Filled | None = None
    """Table of `path`, `action` (relabel, exclude, group) and `value` laid over the photos."""
    bad_files: Literal["stop", "skip"] = "stop"
    """What a training photo that can't be read does; in `val` and `test` it always stops."""
    split: Literal["official", "tutorial", "fractions", "files", "folds"] = "fractions"
    """Take parts from the source or `split_files`, or cut them here."""
    split_files: Files = Field(default_factory=dict)
    """Lists of photos for `train`, `val` or `test`, or the split.json of a run."""
    folds: Annotated[int, Field(ge=2, le=1000)] = 5
    """How many equal parts take turns as `val`, where `split` is `folds`."""
    fold: Annotated[int, Field(ge=0)] = 0
    """Which of them is `val`, from 0."""
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the training photos kept for choices; 0 trains on all, whatever `split` says."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of all photos kept shut, where `split` is `fractions`, or `folds` of unsplit photos."""
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training photos that is used; a larger one holds all of a smaller one."""
    split_seed: int = 0
    """Seed of the cuts, apart from `seed` so that runs with other seeds see the same photos."""

    @property
    def files(self) -> list[str]:
        """The lists and tables it names."""
        corrections = [self.corrections] if self.corrections else []
        return [*self.lists.values(), *self.split_files.values(), *corrections]

    @model_validator(mode="after")
    def _source_is_one(self) -> Self:
        if self.lists and self.layout != "auto":
            raise ValueError(
                "`layout` is for photos in folders, and `lists` name them. Give one of the two."
            )
        if self.group and not self.lists:
            raise ValueError(
                "`group` is a column of a table in `lists`. For folders use `group_pattern`."
            )
        if self.group and self.group_pattern:
            raise ValueError("`group` and `group_pattern` say the same. Give one of the two.")
        return self

    @model_validator(mode="after")
    def _options_belong_to_the_split(self) -> Self:
        if bool(self.split_files) != (self.split == "files"):
            raise ValueError("`split_files` are given for `split: files`, and only for it.")
        if self.split != "folds" and (self.folds, self.fold) != (5, 0):
            raise ValueError("`folds` and `fold` belong to `split: folds`.")
        if self.fold >= self.folds:
            raise ValueError(
                f"`fold` is from 0 to {self.folds - 1} with {self.folds} folds, got {self.fold}."
            )
        if len(self.split_files) > 1 and "all" in self.split_files:
            raise ValueError("`split_files` are one file, or lists for train, val and test.")
        return self
