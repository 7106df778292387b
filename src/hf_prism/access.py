"""A Hub that is somebody's, and busy: who may write where, and when to ask again."""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id


TRIES = 8
FIRST_WAIT, LONGEST_WAIT = 1.0, 600.0
"""Seconds between tries: the first, doubled each time; and what a Hub that names a time may ask for at most."""

# Of the HTTP library below, which is another one from version to version.
HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]
PASSING = (408, 409, 412, 429, 500, 502, 503, 504)
"""Answers that another try may change: too busy, or somebody else committed in between."""

LOGIN = "Log in with `hf auth login`, or set HF_TOKEN; tokens are made at https://huggingface.co/settings/tokens"

Result = TypeVar("Result")


def files_to_change(repo_id: str, token: str | None = None, repo_type: str = "dataset") -> list[str]:
    """The files of a dataset or model that the owner of the token may write to; none where it can be made.

    Raises:
        ValueError: Not an id, no token or one that may not write, somebody else's namespace or dataset.
    """
    _check_repo_id(repo_id, repo_type)
    api = HfApi(token=token)
    account = _account(api)
    try:
        patiently(lambda: api.auth_check(repo_id, repo_type=repo_type, write=True))
        return patiently(lambda: api.list_repo_files(repo_id, repo_type=repo_type))
    except HfHubHTTPError as error:
        if error.response.status_code == 404:
            _check_namespace(repo_id, account)
            return []
        if error.response.status_code not in (401, 403):
            raise
        raise ValueError(
            f"the {repo_type} {repo_id} exists, but {account['name']}, whose token this is, may not write to it. Push to "
            f"another name, such as {account['name']}/{repo_id.split('/')[1]}, or ask its owner for the right."
        ) from error


def _check_repo_id(repo_id: str, repo_type: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} cannot be the name of a {repo_type}: {error} Write it as USER/NAME.") from error
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} does not say whose it is: write it as USER/NAME.")


def _account(api: HfApi) -> dict[str, Any]:
    """Whose token it is, made sure that the token may write at all."""
    try:
        account = patiently(api.whoami)
    except LocalTokenNotFoundError as error:
        raise ValueError(f"pushing needs a token of the Hub, and there is none. {LOGIN}.") from error
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise ValueError(f"the Hub does not accept the token: it is wrong or has expired. {LOGIN}.") from error
    token = account.get("auth", {}).get("accessToken", {})
    scopes = token.get("fineGrained", {}).get("scoped", [])
    granted = [permission for scope in scopes for permission in scope.get("permissions", [])]
    if token.get("role") == "read" or token.get("role") == "fineGrained" and "repo.write" not in granted:
        raise ValueError(
            f"the token of {account['name']} may only read (its role is {token['role']!r}). Make one that may write to "
            f"repositories. {LOGIN}."
        )
    return account


def _check_namespace(repo_id: str, account: Mapping[str, Any]) -> None:
    namespace, name = repo_id.split("/")
    orgs = [org["name"] for org in account.get("orgs", []) if org.get("roleInOrg") != "read"]
    if namespace not in (account["name"], *orgs):
        raise ValueError(
            f"{repo_id} cannot be made: {namespace!r} is neither {account['name']!r}, whose token this is, nor one of "
            f"the organisations it may write to ({', '.join(orgs) or 'none'}). Push to {account['name']}/{name}, or log "
            "in as somebody else with `hf auth login`."
        )


def patiently(action: Callable[[], Result], *passing: type[Exception]) -> Result:
    """Do it, again if the Hub is busy, did not answer, or has changed meanwhile; after TRIES its error stands."""
    for attempt in itertools.count(1):
        try:
            return action()
        except HTTPError as error:
            wait = _pause(error, attempt, passing)
            if wait is None or attempt == TRIES:
                raise
        time.sleep(wait)
    raise AssertionError("unreachable")


def _pause(error: Exception, attempt: int, passing: tuple[type[Exception], ...]) -> float | None:
    """Seconds until the next try, None where none would help."""
    asked = 0.0
    if isinstance(error, HfHubHTTPError):  # else the connection failed, and there is no answer
        if error.response.status_code not in PASSING and not isinstance(error, passing):
            return None
        headers = error.response.headers
        limit = re.search(r"\bt=(\d+)", headers.get("ratelimit", ""))
        asked = float(limit[1]) if limit else 0.0
        if headers.get("retry-after", "").isdecimal():
            asked = float(headers["retry-after"])
    if asked > LONGEST_WAIT:
        return None
    # Those who collided must not meet again, so the wait is partly random.
    return asked + FIRST_WAIT * 2 ** (attempt - 1) * random.SystemRandom().uniform(0.5, 1.0)
