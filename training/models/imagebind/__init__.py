"""ImageBind's vision, audio and text encoders in PyTorch."""

from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig

__all__ = ["ImageBind", "ImageBindConfig"]
