"""Settings for commands: read from the environment, with the Redis that `context-graph up` runs when none is named."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr, ValidationError

from context_graph.errors import ConfigurationError
from context_graph.local.data_folder import DataFolder, read_text
from context_graph.local.redis_server import running_url
from context_graph.settings import Settings


def read_settings(data: Path | None = None) -> Settings:
    """The environment's settings; `data` goes before CG_DATA_DIR. ConfigurationError names each wrong setting."""
    try:
        settings = Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"CG_{'__'.join(str(part) for part in item['loc']).upper()}: {item['msg']}" for item in error.errors()
        )
        raise ConfigurationError(f"the settings are not valid: {wrong}") from error
    return settings if data is None else settings.model_copy(update={"data_dir": data})


def find_redis(settings: Settings) -> Settings:
    """The settings with an address: the one that is set, else that of the embedded Redis running on the data folder.

    With the folder's Redis comes the folder's master key.

    Raises ConfigurationError when there is neither.
    """
    if settings.redis_url is not None:
        return settings
    url = running_url(settings.data_dir)
    if url is None:
        raise ConfigurationError(
            f"no Redis: CG_REDIS_URL is not set and no `context-graph up` runs on {settings.data_dir}; "
            "start that, or name a Redis with search"
        )
    return with_folder_key(settings).model_copy(update={"redis_url": SecretStr(url)})


def embeddable_durability(settings: Settings) -> str:
    """The durability profile, where the embedded Redis can have it. Raises ConfigurationError where it cannot."""
    if settings.ledger.durability == "replicated":
        raise ConfigurationError(
            "CG_LEDGER__DURABILITY=replicated needs a Redis with a replica: name it in CG_REDIS_URL, or choose durable"
        )
    return settings.ledger.durability


def with_folder_key(settings: Settings) -> Settings:
    """The settings with a master key: the one that is set, else the one that the data folder keeps, else none."""
    kept = read_text(DataFolder.at(settings.data_dir).master_key)
    if settings.vault.master_key is not None or kept is None:
        return settings
    vault = settings.vault.model_copy(update={"master_key": SecretStr(kept)})
    return settings.model_copy(update={"vault": vault})
