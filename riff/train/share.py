"""Sharing a finished model on the Hugging Face Hub."""

from pathlib import Path

from riff.errors import RiffError, SystemProblem


def check_token() -> None:
    """Refuse before hours of training what would fail after them.

    Raises:
        RiffError: nobody is logged in to the Hub.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise RiffError("--push_to_hub needs a login at the Hugging Face Hub; run: hf auth login")


def push(folder: Path, repo_id: str) -> str:
    """Upload a model folder, whole, and return its address.

    Args:
        folder: a finished run's ``model``.
        repo_id: where to, "name" or "owner/name"; made where it is missing.

    Raises:
        SystemProblem: the Hub cannot be reached or refuses. The folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        name = api.create_repo(repo_id, exist_ok=True).repo_id
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="riff train"))
    except HFValidationError as error:
        raise RiffError(f"--hub_model_id {repo_id!r} is no name for the Hub ({error}); use owner/name") from error
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())
        raise SystemProblem(
            f"the Hub did not take {folder} ({reason}); upload it: hf upload {repo_id} {folder}"
        ) from error
