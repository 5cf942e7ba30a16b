"""What a bundle says of encoders that are prepared for as ImageBind's are."""

from __future__ import annotations

from ovavel.runtime.bundle.graphs import Encoders
from ovavel.runtime.pipeline.preprocess import PREPARATIONS


def encoders(size: int) -> Encoders:
    """One text encoder for both senses, and embeddings of `size`."""
    return Encoders(
        audio=PREPARATIONS["kaldi-log-mel"].spec("log_mel", size, context_length=77),
        vision=PREPARATIONS["clip-frame"].spec("frames", size, context_length=77),
    )
