"""Models of the Hugging Face Hub: a branch moves, so it is read at the commit that it named once."""

from __future__ import annotations

from typing import Any

from plait.errors import SpecInvalid
from plait_workers.storage.fsspec_errors import library_errors, map_error


def resolve(fs: Any, path: str, where: str) -> tuple[str, str | None]:
    """``path`` with the commit that its revision names now, and that commit. Cost: two requests.

    A bucket of the Hub keeps no commits: its path is given back as it is.

    Args:
        fs: an ``HfFileSystem``.
        path: ``[TYPE/]OWNER/NAME[@REVISION][/FOLDER]``.

    Raises:
        SourceMissing: no such repository or revision, or not for this caller.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_file_system import HfFileSystemResolvedRepositoryPath

    with library_errors("finding a repository of the Hub", where):
        try:
            found = fs.resolve_path(path)
        except (NotImplementedError, ValueError) as error:
            raise SpecInvalid(
                "this names no repository of the Hub", where=where, expected="hf://OWNER/NAME[@REVISION]"
            ) from error
        except FileNotFoundError as error:  # what the Hub itself said is its cause
            cause = error.__cause__ or error
            raise map_error(cause, "finding a repository of the Hub", where) from error
        if not isinstance(found, HfFileSystemResolvedRepositoryPath):
            return path, None
        api = HfApi(endpoint=fs.endpoint, token=fs.token)
        commit = api.repo_info(found.repo_id, revision=found.revision, repo_type=found.repo_type).sha
    kind = {"dataset": "datasets/", "space": "spaces/"}.get(found.repo_type, "")
    folder = f"/{found.path_in_repo}" if found.path_in_repo else ""
    return f"{kind}{found.repo_id}@{commit}{folder}", commit
