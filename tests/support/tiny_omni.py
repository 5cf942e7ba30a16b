"""Writes a tiny Gemma 4 with random weights that takes text, stills and sound, as `transformers serve` loads it.

Its processor is Gemma 4's own without the part for video, which needs torchvision.
"""

from __future__ import annotations

import json
from pathlib import Path

SPECIAL = ("<pad>", "<eos>", "<bos>", "<boi>", "<image>", "<eoi>", "<boa>", "<audio>", "<eoa>", "<|video|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<image>{% elif part['type'] == 'audio' %}<audio>{% else %}{{ part['text'] }}{% endif %}\n{% endfor %}{% endfor %}"
)
PROCESSOR = """
from transformers.models.gemma4.processing_gemma4 import Gemma4Processor
from transformers.processing_utils import ProcessorMixin


class StillsProcessor(Gemma4Processor):
    def __init__(self, feature_extractor, image_processor, tokenizer, chat_template=None, **kwargs):
        self.image_seq_length, self.audio_seq_length, self.audio_ms_per_token = 16, 750, 40
        for kind in ("image", "audio"):
            setattr(self, f"{kind}_token", getattr(tokenizer, f"{kind}_token"))
            setattr(self, f"{kind}_token_id", getattr(tokenizer, f"{kind}_token_id"))
        for name in ("boi_token", "eoi_token", "boa_token", "eoa_token"):
            setattr(self, name, getattr(tokenizer, name))
        self.video_token = self.video_token_id = None
        ProcessorMixin.__init__(
            self,
            feature_extractor=feature_extractor,
            image_processor=image_processor,
            tokenizer=tokenizer,
            chat_template=chat_template,
        )
"""


def write_tiny_omni(folder: Path) -> None:
    """Write the model to `folder`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.gemma4.configuration_gemma4 import Gemma4Config
    from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
    from transformers.models.gemma4.modeling_gemma4 import Gemma4ForConditionalGeneration

    ids = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    by_bytes = Tokenizer(models.BPE(vocab=ids, merges=[]))
    by_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    by_bytes.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=by_bytes,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        extra_special_tokens={f"{name}_token": f"<{name}>" for name in ("image", "boi", "eoi", "audio", "boa", "eoa")},
        chat_template=TEMPLATE,
    )
    small = {"hidden_size": 32, "num_attention_heads": 2}
    config = Gemma4Config(
        text_config={
            **small,
            "vocab_size": len(ids),
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "global_head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "vocab_size_per_layer_input": len(ids),
            "hidden_size_per_layer_input": 8,
            "max_position_embeddings": 8192,
        },
        vision_config={
            **small,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "position_embedding_size": 256,
        },
        audio_config={
            **small,
            "num_hidden_layers": 1,
            "output_proj_dims": 32,
            "subsampling_conv_channels": (128, 4),
        },
        boi_token_id=ids["<boi>"],
        eoi_token_id=ids["<eoi>"],
        image_token_id=ids["<image>"],
        video_token_id=ids["<|video|>"],
        boa_token_id=ids["<boa>"],
        eoa_token_index=ids["<eoa>"],
        audio_token_id=ids["<audio>"],
    )
    torch.manual_seed(0)
    Gemma4ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "stills_processor.py").write_text(PROCESSOR)
    own = {"auto_map": {"AutoProcessor": "stills_processor.StillsProcessor"}}
    parts = {"feature_extractor": Gemma4AudioFeatureExtractor(), "image_processor": Gemma4ImageProcessorPil()}
    for part in parts.values():
        part.save_pretrained(folder)
    described = {name: json.loads(part.to_json_string()) for name, part in parts.items()}
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "StillsProcessor", **own, **described})
    )
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, **own}))
