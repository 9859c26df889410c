"""Small models with random weights and files to encode, made on the spot."""

import json

import numpy as np

CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 64,
            "heads": 2,
            "layers": 2,
        },
    },
}


def write_clip(folder, **preprocessing):
    """A folder that open_clip can load: a configuration of a small ViT, without weights."""
    folder.mkdir()
    config = {**CLIP_CONFIG, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def write_clap(folder, *, fusion=False):
    """A folder that transformers can load: a small CLAP without weights, and a tokenizer."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import ClapConfig, ClapFeatureExtractor, PreTrainedTokenizerFast

    special = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
    bytes_only = ByteLevelBPETokenizer()
    texts = ["the sound of a dog", "a recording in which rain can be heard"]
    bytes_only.train_from_iterator(
        texts, 300, special_tokens=[*special.values()], show_progress=False
    )
    PreTrainedTokenizerFast(
        tokenizer_object=bytes_only._tokenizer,
        **{f"{name}_token": token for name, token in special.items()},
    ).save_pretrained(folder)
    ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc").save_pretrained(folder)
    ClapConfig(
        text_config={
            "vocab_size": 300,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 80,
            "projection_dim": 16,
        },
        audio_config={
            "hidden_size": 16,
            "patch_embeds_hidden_size": 8,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "projection_dim": 16,
            "num_classes": 4,
            "enable_fusion": fusion,
            "fusion_type": "aff_2d" if fusion else None,
            "aff_block_r": 1,
        },
        projection_dim=16,
    ).save_pretrained(folder)
    return str(folder)


def write_pictures(folder, n_classes=3, n_each=4, size=(40, 30)):
    """Noise around one colour for each class, as PNG files in folders of class names."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for c in range(n_classes):
        place = folder / f"class_{c}"
        place.mkdir(parents=True)
        color = rng.integers(0, 256, 3)
        for i in range(n_each):
            noise = rng.integers(-60, 60, (size[1], size[0], 3))
            pixels = np.clip(color + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


def tone(frequency, seconds=1.0, rate=48_000):
    """A sine."""
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
