"""The floor of vectors: onnxruntime and the tokenizer, and nothing between them and the texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tokenizers import Tokenizer

from context_graph.models.embedder import find_model
from context_graph.settings import EmbeddingSettings

Vectors = NDArray[np.float32]


class BareModel:
    """The product's own model file and tokenizer; threads and token limit as the settings say."""

    def __init__(self, settings: EmbeddingSettings, cache_dir: Path) -> None:
        folder = find_model(settings, cache_dir).folder
        if folder is None:
            raise RuntimeError("the floor needs the model in a folder: install the extra `models`")
        options = onnxruntime.SessionOptions()
        if settings.threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = settings.threads
        self._session: Any = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {item.name for item in self._session.get_inputs()}
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(max_length=settings.max_tokens)
        self._tokenizer.enable_padding()

    def embed(self, texts: list[str]) -> Vectors:
        """One batch: tokenize, run, mean over the tokens, length 1."""
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.array([item.ids for item in encoded], dtype=np.int64)
        mask = np.array([item.attention_mask for item in encoded], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, {name: feeds[name] for name in feeds if name in self._inputs})[0]
        weights = mask[:, :, None].astype(np.float32)
        means = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        vectors: Vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
        return vectors.astype(np.float32)
