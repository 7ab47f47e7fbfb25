"""Where the files of an engine's tokenizer stand."""

from pathlib import Path


def tokenizer_folder(name: str, revision: str | None) -> Path | None:
    """The folder on this machine, None where it is not here.

    Args:
        name: a folder, or a published name that an engine has downloaded.
        revision: of what is published.
    """
    if Path(name).is_dir():
        return Path(name)
    from transformers.utils.hub import cached_file

    found = cached_file(
        name,
        "tokenizer.json",
        revision=revision,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found).parent
