"""`python -m studio.workspace.pushing`: sends a folder to the Hugging Face hub and says how far it is.

In: one JSON line on stdin (source, repo, private, ours). Out: JSON lines on stdout: done and total bytes, the file
that is being sent, the address, in the end finished or what went wrong in a sentence. Ends when its stdin does.
Weights go one file at a time, the largest last, then what describes them: a model that can be loaded there is whole.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS = (".safetensors", ".gguf")
Tell = Callable[..., None]


def main() -> int:
    """Do one push. 0 where it ended well."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        push(request, tell)
    except Exception as error:  # noqa: BLE001 - whatever the hub or its library raises is told, in one sentence
        message, hint = sentence(error, request["repo"])
        tell(state="failed", error=message, hint=hint)
        return 1
    tell(state="finished")
    return 0


def tell(**fields: Any) -> None:
    """One line to the studio."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(1)


class Taken(Exception):
    """There is a model of this name on the hub, and this export didn't make it."""


def push(request: dict[str, Any], tell: Tell) -> None:
    """Make the model on the hub if it isn't there, and send what it lacks. Raises what the hub's library raises."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api, source = HfApi(), Path(request["source"])
    groups = parts(source)
    try:
        made = api.create_repo(request["repo"], private=request["private"], exist_ok=bool(request["ours"]))
    except HfHubHTTPError as error:
        if getattr(error.response, "status_code", None) == 409:
            raise Taken(request["repo"]) from None
        raise
    tell(url=str(made))
    done, total = 0, sum(size(source, names) for names in groups)
    for names in groups:
        tell(done=done, total=total, file=names[0] if len(names) == 1 else "")
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=str(source),
            allow_patterns=[glob.escape(name) for name in names],
            commit_message=f"Add {names[0]}" if len(names) == 1 else "Add the model's card, config and tokenizer",
        )
        done += size(source, names)
    tell(done=done, total=total, file="")


def parts(source: Path) -> list[list[str]]:
    """What is sent together: each file of weights alone, small ones first, then all the rest."""
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
    names = sorted(path.as_posix() for path in files if not any(part.startswith(".") for part in path.parts))
    weights = [name for name in names if name.endswith(WEIGHTS)]
    weights.sort(key=lambda name: (source / name).stat().st_size)
    rest = [name for name in names if name not in weights]
    return [*([name] for name in weights), *([rest] if rest else [])]


def size(source: Path, names: list[str]) -> int:
    return sum((source / name).stat().st_size for name in names)


def sentence(error: Exception, repo: str) -> tuple[str, str]:
    """What went wrong and what to do next. Of the error only its kind is told: its text may hold a token."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    again = "Push again: it goes on where it was."
    if isinstance(error, Taken):
        return f"There is a model {repo} on the hub already, and nothing of it was touched.", "Give another name."
    if isinstance(error, OfflineModeIsEnabled):
        return "The hub is switched off here (HF_HUB_OFFLINE).", "Unset that variable and start the studio again."
    if isinstance(error, HFValidationError):
        return f"{repo} can't be a name on the hub.", "Give letters, digits, - _ and dots: you/my-model."
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return "The hub doesn't know who you are.", "Run `hf auth login`, or set HF_TOKEN, and push again."
    if status in (403, 404):
        return f"Your token may not write {repo}.", "Give a name of your own, or make a token with the right to write."
    if isinstance(error, HfHubHTTPError) and status is not None:
        return f"The hub answered with an error ({status}).", again
    if isinstance(error, OSError) or type(error).__module__.startswith("httpx"):
        return "The hub can't be reached.", f"Look at the connection. {again}"
    return f"The push failed ({type(error).__name__}).", again


if __name__ == "__main__":
    sys.exit(main())
