"""The demo world's captions and data set: what its encoders and its head are trained on."""

import pytest

from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.eval.demo.world.kinds import KINDS
from ovavel.runtime.bundle.vocabulary import Tokenizer
from ovavel.training.demo_world.captions import CAPTIONS, demo_tokenizer
from ovavel.training.demo_world.dataset import Sizes, write_dataset

BY_NAME = {kind.name: kind for kind in KINDS}


class TestTexts:
    def test_every_caption_group_has_one_phrase_for_each_kind(self) -> None:
        names, *parts = CAPTIONS
        assert set(names.texts) == {*BY_NAME, names.texts[names.of_kind[-1]]}
        for captions in parts:
            for kind, index in zip(KINDS, captions.of_kind, strict=False):
                assert set(captions.texts[index].split()) <= set(kind.name.split())

    def test_the_tokenizer_is_reproducible_and_distinguishes_texts(self, tmp_path) -> None:
        data = demo_tokenizer()
        assert data == demo_tokenizer()
        (tmp_path / "tokenizer.json").write_bytes(data)
        tokenizer = Tokenizer.open(tmp_path / "tokenizer.json")
        texts = [*BY_NAME, "other", "a zebra, é", "ringing bell"]
        tokens = tokenizer.encode(texts)
        assert tokens.shape == (len(texts), 77)
        assert len({tuple(row) for row in tokens}) == len(texts)
        ends = tokens.max(axis=1)
        assert (ends == ends[0]).all()  # the end token has the highest id; the text tower reads it out


class TestDataset:
    SIZES = Sizes(train=1, val=1, test=1)

    @pytest.mark.slow
    def test_it_reads_as_ovavebench_and_an_interrupted_run_resumes(self, tmp_path) -> None:
        root = tmp_path / "one"
        write_dataset(root, self.SIZES, 4, workers=2)
        bench = OVAVEBench.open(root)
        assert len(bench.names) == len(KINDS) + 1
        assert len(bench.clips) == 40 + 60 + 60
        assert {clip.category for clip in bench.select("train")} == {kind.name for kind in KINDS if kind.seen}
        clip = bench.select("test", kind="unseen")[0]
        media = bench.media(clip)
        assert len(media.frames) == 10
        assert media.waveform.shape == (1, 160_000)

        files = {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        victims = [bench.audio_path(clip), *bench.frames_dir(bench.select("val")[3]).iterdir()]
        for victim in victims:
            victim.unlink()
        bench.frames_dir(bench.select("val")[3]).rmdir()
        write_dataset(root, self.SIZES, 4, workers=1)
        again = {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        assert again == files
