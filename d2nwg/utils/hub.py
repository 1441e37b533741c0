"""Uploads to the Hugging Face Hub."""

import glob
from collections.abc import Iterable
from pathlib import Path

from d2nwg.utils.errors import UserError


def upload(folder: Path, files: Iterable[Path], name: str, what: str, space: bool = False) -> str:
    """Upload files of a folder as a repository of models, or as a Gradio Space; its address.

    Args:
        files: which ones, below the folder.
        name: the repository: ``me/name``, or ``name`` for whoever is logged in.
        what: what is uploaded, for sentences: "bundle".
        space: as a Space.
    Raises:
        UserError: the Hub cannot be reached, or does not let us.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    kind, sdk = ("space", "gradio") if space else ("model", None)
    try:
        patterns = [glob.escape(str(file.relative_to(folder))) for file in files]
        api = HfApi()
        made = api.create_repo(name, exist_ok=True, repo_type=kind, space_sdk=sdk)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            allow_patterns=patterns,
            commit_message=f"Upload a D2NWG {what}",
            repo_type=kind,
        )
    except HFValidationError as reason:
        raise UserError(f"{name} cannot be the name of a repository: write for instance me/my-{what}.") from reason
    except HfHubHTTPError as reason:
        raise UserError(f"The Hub refused {name}: log in with `hf auth login`; the {what} is in {folder}.") from reason
    except (OSError, OfflineModeIsEnabled) as reason:
        raise UserError(f"The Hub cannot be reached from here; the {what} is in {folder}.") from reason
    return str(made)
