"""A bundle with another head: its encoders need not be exported again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec

from ovavel.export.golden import checked
from ovavel.export.graphs import save_variant, traced
from ovavel.export.verify import reference
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.manifest import MANIFEST, Parity
from ovavel.runtime.system.progress import no_progress
from ovavel.runtime.verification.golden import GOLDEN, Golden
from ovavel.training.heads.base import Head
from ovavel.training.heads.temporal import HeadGraph

__all__ = ["with_head"]


def with_head(bundle: Path, head: Head, out: Path) -> Bundle:
    """Copy the folder `bundle` to `out` as if it had been exported with `head`, and let it check itself in fp32."""
    shutil.copytree(bundle, out)
    opened = Bundle.open(out)
    manifest, golden, graph = opened.manifest, Golden.load(opened), HeadGraph(head.eval())
    frames, sounds = golden.clips[..., 0], golden.clips[..., 1]
    arrays = golden.audio[sounds], golden.vision[frames], golden.text.audio, golden.text.vision
    _, (audio, vision, score) = reference("head", graph, {"clips": arrays}).cases["clips"]
    decided = replace(golden, audio_similarity=audio, vision_similarity=vision, score=score)
    (out / GOLDEN).write_bytes(decided.encode())
    (out / "head.onnx.data").unlink(missing_ok=True)
    save_variant(traced("head", graph, encoders=manifest.encoders), "head", out, "fp32")
    changed = msgspec.structs.replace(
        manifest,
        model=msgspec.structs.replace(manifest.model, head=head.name, head_layers=head.blocks, head_sha256="0" * 64),
        fusion=msgspec.structs.replace(
            manifest.fusion,
            audio_scale=head.audio_scale,
            decision="learned" if head.score == "learned" else "positive",
        ),
        files={file.name: file_entry(file) for file in sorted(out.iterdir()) if file.name != MANIFEST},
        parity=Parity(versions=manifest.parity.versions, checks=()),
    )
    (out / MANIFEST).write_bytes(changed.calibrated(None).encode())
    return checked(Bundle.open(out), ["fp32"], no_progress)
