"""The real models, offline: vectors that mean something, names, exact token counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from context_graph.errors import ConfigurationError
from context_graph.models.embedder import find_model
from context_graph.models.offline import assemble_packaged
from context_graph.models.opening import open_embedder
from context_graph.models.recogniser import open_recogniser
from context_graph.models.tokens import open_counter
from context_graph.settings import EmbeddingSettings, EntitySettings


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


async def test_vectors_are_unit_vectors_and_near_when_meanings_are(model_cache: Path) -> None:
    async with open_embedder(EmbeddingSettings(), model_cache) as embedder:
        vectors = await embedder.embed(["A man plays guitar", "Someone plays an instrument", "Shares fell on Monday"])
    assert embedder.model_id.startswith("all-MiniLM-L6-v2/int8-packaged-")
    assert (vectors.shape, vectors.dtype) == ((3, embedder.dimensions), np.dtype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5
    assert abs(vectors[0] @ vectors[2]) < 0.2


async def test_batches_keep_the_order_of_the_texts(model_cache: Path) -> None:
    texts = ["word " * (i % 7) + f"number {i}" for i in range(21)] + ["", "long " * 2000]
    async with open_embedder(EmbeddingSettings(batch_texts=4), model_cache) as embedder:
        together = await embedder.embed(texts)
        alone = np.vstack([await embedder.embed([text]) for text in texts])
        nothing = await embedder.embed([])
    assert (together * alone).sum(axis=1).min() > 0.9999  # a vector depends on its text alone, not on the batch
    assert nothing.shape == (0, 384)


async def test_only_as_many_tokens_as_set_reach_the_model(model_cache: Path) -> None:
    head = "alpha beta gamma delta epsilon zeta eta theta"
    async with open_embedder(EmbeddingSettings(max_tokens=8), model_cache) as embedder:
        vectors = await embedder.embed([head + " and then", head + " but never the other thing"])
    assert vectors[0] @ vectors[1] > 0.999


async def test_other_dimensions_are_refused_with_the_way_out(model_cache: Path) -> None:
    async with open_embedder(EmbeddingSettings(dimensions=768), model_cache) as embedder:
        with pytest.raises(ConfigurationError, match="384 dimensions, CG_EMBEDDING__DIMENSIONS says 768"):
            await embedder.embed(["x"])


def test_a_folder_without_a_model_is_refused_naming_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"lacks tokenizer_config\.json, model\.onnx"):
        find_model(EmbeddingSettings(model_path=tmp_path), tmp_path)


async def test_a_broken_model_is_a_configuration_error(model_cache: Path, tmp_path: Path) -> None:
    packaged = assemble_packaged(model_cache)
    assert packaged is not None
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((packaged.folder / name).read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    async with open_embedder(EmbeddingSettings(model_path=tmp_path), model_cache) as embedder:
        with pytest.raises(ConfigurationError, match="does not load"):
            await embedder.embed(["x"])


def test_the_packaged_model_is_assembled_once(model_cache: Path) -> None:
    first, second = assemble_packaged(model_cache), assemble_packaged(model_cache)
    assert first is not None
    assert first == second
    assert [path.name for path in model_cache.iterdir()] == [first.folder.name]


async def test_names_are_recognised_and_a_blank_pipeline_finds_none() -> None:
    text = "Mia Li flew from New York to Seattle."
    async with open_recogniser(EntitySettings()) as recogniser:
        first, second = await recogniser.recognise([text, ""])
    assert [(span.text, span.label) for span in first] == [
        ("Mia Li", "PERSON"),
        ("New York", "GPE"),
        ("Seattle", "GPE"),
    ]
    assert all(text[span.start : span.end] == span.text for span in first)
    assert second == []
    async with open_recogniser(EntitySettings(model="blank:en")) as recogniser:
        assert await recogniser.recognise([text]) == [[]]


async def test_a_missing_pipeline_is_a_configuration_error() -> None:
    async with open_recogniser(EntitySettings(model="no_such_pipeline")) as recogniser:
        with pytest.raises(ConfigurationError, match="no_such_pipeline"):
            await recogniser.recognise(["x"])


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_tokens_are_counted_as_tiktoken_counts_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    import tiktoken

    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations))) / "litellm_core_utils" / "tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    reference = tiktoken.get_encoding(name)
    counter = open_counter(name)
    samples = (
        "",
        "Hello, world!",
        "It's 12345.67 €\n\n  x",
        "naïve café 東京 🎉",
        "def f(x):\n\treturn x  # ok\r\n",
        "HELLO Don'T",
    )
    for text in samples:
        assert counter.count(text) == len(reference.encode_ordinary(text))
    assert counter.count("<|endoftext|>") > 1


def test_an_unknown_tokenizer_is_refused_naming_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="o200k_base, cl100k_base"):
        open_counter("gpt2")
