"""What a job over many items is to those that run it here or on a cluster: its items, and what works on them.

`ovavel localize` has recordings and `worker.Worker`; other commands bring their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeAlias, TypeVar

from ovavel.runtime.errors import OutputError, OvavelError, StorageError

__all__ = ["AnyJob", "AnyWorker", "Item", "JobT", "ItemT", "Outcome", "Start", "State"]

State: TypeAlias = Literal["done", "kept", "failed", "unequal", "unusable", "unwritable", "unreachable"]


class Item(Protocol):
    """One of the things to do, a plain value. Its name is its own among all of the job."""

    @property
    def name(self) -> str:
        """Marks and lists name it so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one item."""

    state: State
    """done: its results are written. kept: they were there. failed: it has no results, and the others go on. unequal:
    there are other results. unusable: this process cannot work on the job. unwritable: no results can be written.
    unreachable: object storage does not answer, or refuses."""
    text: str = ""
    """Why not; empty where it is done or kept."""
    notices: tuple[str, ...] = ()
    """What to report beside it: notes on the item; on the engine, with the first one of a process."""

    @classmethod
    def of(cls, error: OvavelError) -> Self:
        """What became of an item that this error kept from being looked at, and will keep others from."""
        state: State = "unusable"
        if isinstance(error, OutputError):
            state = "unwritable"
        elif isinstance(error, StorageError):
            state = "unreachable"
        return cls(state=state, text=str(error))


ItemT = TypeVar("ItemT", bound=Item)
_ItemT_contra = TypeVar("_ItemT_contra", bound=Item, contravariant=True)


class AnyWorker(Protocol[_ItemT_contra]):
    """Works on one item after another in whatever process, and keeps its models from one to the next."""

    def process(self, item: _ItemT_contra) -> Outcome:
        """Do the item unless this was done before. Raises nothing; done again, it has the same effects."""

    def give_up(self, item: _ItemT_contra, killed: int) -> Outcome:
        """Deal with an item that ended so many processes that worked on it. Raises nothing."""


class AnyJob(Protocol):
    """What is asked for: plain values that every process and machine gets."""

    @property
    def out(self) -> str:
        """Folder for results, absolute, which all of them reach."""

    @property
    def threads(self) -> int | None:
        """Threads of the encoders, if their number was given."""

    @property
    def gpus(self) -> bool | None:
        """Whether the encoders need a GPU; None: they take one if there is one."""

    def on_slot(self, threads: int, *, gpu: bool) -> Self:
        """The same on a slot of so many cores, with a GPU or without."""


JobT = TypeVar("JobT", bound=AnyJob)

Start: TypeAlias = Callable[[JobT], AnyWorker[ItemT]]
"""Makes a worker of a job. It is found by its module and name in other processes, as pickle does it."""
