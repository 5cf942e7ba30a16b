"""What `ovavel train features` prints at its end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ovavel.runtime.reporting.text import names_text, one_line
from ovavel.runtime.types import BUFFER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ovavel.eval.datasets.feature_cache import Damage
    from ovavel.training.features.extract import Extraction

__all__ = ["print_damaged", "print_extraction"]

_SHOWN = 10  # damaged clips that are reported one by one


def print_extraction(extraction: Extraction, splits: tuple[str, ...], clips: int) -> None:
    """Print what a run did, and what is in the cache, which has `clips` of the clips of `splits`."""
    cache = extraction.cache
    damaged = {key: damage for key, damage in cache.damaged.items() if key[0] in splits}
    rate = f", {extraction.encoded * BUFFER / extraction.seconds:.1f} segments/s" if extraction.encoded else ""
    print(f"{extraction.encoded} clips encoded now{rate}; {extraction.kept} were already in the cache")
    if extraction.renewed:
        print(f"{extraction.renewed} files of the cache were rebuilt because clips have changed")
    if clips < (total := sum(cache.info.clips[split] for split in splits)):
        print(f"{clips} of {total} clips are in the cache now; the others are for other parts, or for another run")
    print_damaged(damaged, clips)
    info = cache.info
    print(
        f"{cache.path}: {info.model} in {info.precision} by {info.backend} on {info.device}, {', '.join(splits)}, "
        f"{names_text(len(cache.names))}"
    )
    if info.passes:
        print(f"training clips have {info.passes} in the audio encoder")


def print_damaged(damaged: Mapping[tuple[str, str], Damage], clips: int) -> None:
    """Print how many of `clips` are damaged, by kind, and the first ones by name."""
    print(f"{clips - len(damaged)} of {clips} clips could be read; {len(damaged)} damaged")
    for kind, count in Counter(damage.kind for damage in damaged.values()).most_common():
        print(f"  {count} × {kind}")
    for (split, name), damage in list(damaged.items())[:_SHOWN]:
        print(f"  {one_line(f'{split}/{name}: {damage.message}')}")
    if len(damaged) > _SHOWN:
        print(f"  … and {len(damaged) - _SHOWN} more")
