"""`ave`: each second's senses move towards what they have in common (Tian et al. 2018, its residual fusion)."""

from __future__ import annotations

from torch import Tensor, nn

from ovavel.training.heads.base import AUDIO_SCALE, Head, Reach

__all__ = ["AVEHead"]


class AVEHead(Head):
    """a' = tanh(a + m) and v' = tanh(v + m), where m is the mean of what two small networks make of a and of v."""

    name = "ave"

    def __init__(self, dim: int = 1024, *, audio_scale: float = AUDIO_SCALE) -> None:
        super().__init__(dim, audio_scale=audio_scale)
        self.audio, self.vision = (nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, dim)) for _ in range(2))

    @property
    def reach(self) -> Reach:
        """Nothing is mixed over time."""
        return Reach(0, 0)

    def forward(self, audio: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) of unit norm, twice → (B, T, D) features of audio and of vision."""
        self.check_sizes(audio, vision)
        audio = audio * self.audio_scale
        common = (self.vision(vision) + self.audio(audio)) / 2
        return (audio + common).tanh(), (vision + common).tanh()
