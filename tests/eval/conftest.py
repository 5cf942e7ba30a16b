"""A small dataset, encoded by the tiny bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.eval.scored import NAMES, write_cache, write_dataset

from ovavel.eval.datasets.encode import Encoded, encode_clips
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.eval.datasets.texts import embed_texts
from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("ovave"))


@pytest.fixture(scope="session")
def bundle(exported_bundle: Path) -> Bundle:
    return Bundle.open(exported_bundle)


@pytest.fixture(scope="session")
def backend(bundle: Bundle) -> Iterator[Backend]:
    opened = open_backend(bundle, device="cpu", threads=1)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def encoded(data: Path, backend: Backend) -> Encoded:
    dataset = OVAVEBench.open(data)
    return encode_clips(dataset, dataset.select("test"), backend)


@pytest.fixture(scope="session")
def text(bundle: Bundle) -> TextEmbeddings:
    return embed_texts(bundle, NAMES)


@pytest.fixture(scope="session")
def cache(
    tmp_path_factory: pytest.TempPathFactory, data: Path, bundle: Bundle, encoded: Encoded, text: TextEmbeddings
) -> Path:
    return write_cache(tmp_path_factory.mktemp("features"), OVAVEBench.open(data), bundle, encoded, text)
