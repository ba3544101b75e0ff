"""Fetches a model's config.json, and nothing else of it, from the Hugging Face hub.

Used with --online only. A handful of small GETs need no library: ``huggingface_hub`` is not
imported, and its cache is read (``hub_cache.py``) but never written. The endpoint, its headers and
the token's places are those of huggingface_hub 2.4.0 (constants.py, file_download.py,
utils/_auth.py, utils/_http.py hf_raise_for_status).
"""

from __future__ import annotations

import json
import os
import ssl
import time
from functools import lru_cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

from lora_lint.models import cache
from lora_lint.models.cache import MODEL_FILES, host
from lora_lint.models.config_file import MAX_BYTES
from lora_lint.models.hub_cache import home

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message
    from http.client import HTTPResponse

# Seconds for a connection, and for all requests about one model.
CONNECT: Final = 3.0
TOTAL: Final = 10.0
# What ``main`` or another branch holds is asked for again after a day.
FRESH: Final = 24 * 60 * 60
_NOTE: Final = "fetched.json"
_COMMIT: Final = "X-Repo-Commit"
_TRUE: Final = frozenset(("1", "ON", "YES", "TRUE"))


class NotFetched(Exception):  # noqa: N818 - an answer, not a fault
    """The hub gave no config; the message says why, for people."""


class _Unreachable(NotFetched):
    """The hub itself does not answer: asking for another model is in vain."""


class _NoEntry(Exception):  # noqa: N818
    """The repository has no such file."""


def fetch(name: str, revision: str | None = None) -> Path:
    """The folder with a model's config.json, or what it has instead, as the hub has it.

    ``name`` is the id of a model, ``revision`` a branch, tag or commit. A file of a commit, or one
    that was fetched less than a day ago, is not asked for again. Raises ``NotFetched``.
    """
    folder = cache.model_folder(name, revision)
    answer = _fetched(cache.hub(), folder, name, revision or "main")
    if isinstance(answer, NotFetched):
        raise NotFetched(str(answer))
    return answer


@lru_cache(maxsize=1024)
def _fetched(hub: str, target: Path, name: str, revision: str) -> Path | NotFetched:
    """One answer for a run, which asks for each line of versions and each fix."""
    from lora_lint.progress import saying

    if _is_fresh(target, revision):
        return target
    if _offline():
        return NotFetched("HF_HUB_OFFLINE is set")
    if hub in _DOWN:
        return _DOWN[hub]
    try:
        with saying(f"asking {host()} for {name} ..."):
            _within(TOTAL, lambda: _Hub(hub, name, revision).keep(target))
    except _Unreachable as exc:
        _DOWN[hub] = exc
        return target if _age(target) is not None else exc
    except NotFetched as exc:
        return exc
    return target


# Hubs that did not answer in this run.
_DOWN: Final[dict[str, NotFetched]] = {}


def _age(folder: Path) -> float | None:
    """Seconds since a model was asked for, None if it never was."""
    try:
        return time.time() - (folder / _NOTE).stat().st_mtime
    except OSError:
        return None


def _is_fresh(folder: Path, revision: str) -> bool:
    age = _age(folder)
    if age is None or not any((folder / file).is_file() for file in MODEL_FILES):
        return False
    return 0 <= age < FRESH or _is_commit(revision)


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and set(revision) <= set("0123456789abcdef")


def _offline() -> bool:
    set_to = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return set_to.upper() in _TRUE


def token() -> str | None:
    """The user's token: ``HF_TOKEN``, else the file that ``hf auth login`` wrote."""
    if (os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN") or "").upper() in _TRUE:
        return None
    found = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if not found:
        path = os.environ.get("HF_TOKEN_PATH")
        try:
            found = (Path(path).expanduser() if path else home() / "token").read_text("utf-8")
        except (OSError, ValueError):
            return None
    found = "".join(found.split())
    return found if found.isascii() and found.isprintable() and found else None


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do work in a thread that is left behind when time is up: no time-out of a socket bounds the
    look-up of a name, or an answer that trickles.

    Raises ``NotFetched``, or what the work raises.
    """
    done: list[Exception | None] = []

    def run() -> None:
        try:
            work()
        except Exception as exc:  # noqa: BLE001 - raised again in the thread that waits
            done.append(exc)
        else:
            done.append(None)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not done:
        raise _Unreachable(f"{host()} did not answer within {seconds:g} s")
    if done[0] is not None:
        raise done[0]


# The requests -----------------------------------------------------------------------------------


class _Answer(NamedTuple):
    """A file of the hub; ``text`` is None where it has not changed."""

    text: str | None
    etag: str | None
    commit: str | None


class _Hub(NamedTuple):
    """One model on the hub."""

    endpoint: str
    name: str
    revision: str

    def keep(self, folder: Path) -> None:
        """Fetch the file that says what the model is into a folder.

        Raises ``NotFetched``.
        """
        note = _note(folder)
        for file in MODEL_FILES:
            known = note.get("etag") if note.get("file") == file else None
            try:
                answer = self.get(file, known if (folder / file).is_file() else None)
            except _NoEntry:
                _remove(folder / file)
                continue
            if answer.text is not None:
                cache.write(folder / file, answer.text)
            now = {"file": file, "etag": answer.etag or known, "commit": answer.commit}
            cache.write(folder / _NOTE, json.dumps(now))
            if not (folder / file).is_file():
                raise NotFetched(
                    f"{cache.folder()} can't be written; LORA_LINT_CACHE names another"
                )
            return
        raise NotFetched(f"{self.name} has no config.json on {host()}")

    def get(self, file: str, etag: str | None) -> _Answer:
        """A file, unless it still has that etag.

        Raises ``_NoEntry``, ``NotFetched``.
        """
        url = f"{self.endpoint}/{self.name}/resolve/{quote(self.revision, safe='')}/{file}"
        if not url.startswith(("https://", "http://")):
            raise NotFetched(f"HF_ENDPOINT is no web address: {self.endpoint:.80}")
        headers = {"User-Agent": "lora-lint", "Accept-Encoding": "identity"}
        if etag:
            headers["If-None-Match"] = etag
        asked = request.Request(url, headers=headers)  # noqa: S310 - checked above
        secret = token()
        if secret is not None:  # "unredirected": never sent to where a redirect leads
            asked.add_unredirected_header("Authorization", f"Bearer {secret}")
        try:
            with _opener().open(asked, timeout=TOTAL) as response:
                body = response.read(MAX_BYTES + 1)
                text = self.text(body, file)
                return _Answer(text, response.headers["ETag"], response.headers[_COMMIT])
        except HTTPError as exc:
            with exc:
                if exc.code == 304 and etag:
                    return _Answer(None, etag, exc.headers.get(_COMMIT))
                raise self.refusal(exc, known=secret is not None) from None
        except (OSError, HTTPException, ValueError) as exc:
            reason = getattr(exc, "reason", exc)
            what = "it did not answer in time" if isinstance(reason, TimeoutError) else reason
            raise _Unreachable(f"{host()} can't be reached: {str(what)[:200]}") from exc

    def text(self, body: bytes, file: str) -> str:
        """The text of a JSON object.

        Raises ``NotFetched`` for anything else.
        """
        what = f"{file} of {self.name} from {host()}"
        if len(body) > MAX_BYTES:
            raise NotFetched(f"{what} has more than {MAX_BYTES // 2**20} MiB")
        try:
            text = body.decode("utf-8-sig")
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise NotFetched(f"{what} is not a JSON object")
        return text

    def refusal(self, exc: HTTPError, *, known: bool) -> Exception:
        """What an error of the hub means; ``known``: a token was sent."""
        code, message = exc.headers.get("X-Error-Code"), exc.headers.get("X-Error-Message") or ""
        name = self.name
        if code == "EntryNotFound":
            return _NoEntry()
        if code == "RevisionNotFound":
            return NotFetched(f"{name} has no revision {self.revision} on {host()}")
        if code == "GatedRepo":
            also = "the account of your token was not granted access" if known else "set HF_TOKEN"
            asked = f"accept its licence at {self.endpoint}/{name}"
            return NotFetched(
                f"{name} is gated: {asked}" + (f" ({also})" if known else f" and {also}")
            )
        if message == "Access to this resource is disabled.":
            return NotFetched(f"{name} is disabled on {host()}")
        if exc.code == 401 and message == "Invalid credentials in Authorization header":
            return NotFetched(f"{host()} refuses your token (HF_TOKEN, or that of hf auth login)")
        if code == "RepoNotFound" or exc.code == 401:  # 401 stands for a missing one as well
            private = "your token may not see it" if known else "it is private: set HF_TOKEN"
            return NotFetched(f"{host()} has no model {name}, or {private}")
        if exc.code == 429:
            return _Unreachable(f"{host()} refuses for now: too many requests")
        if exc.code >= 500:
            return _Unreachable(f"{host()} is in trouble (status {exc.code})")
        return NotFetched(f"{host()} answers with status {exc.code} for {name}")


def _note(folder: Path) -> dict[str, Any]:
    try:
        note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


class _Timed(HTTPConnection):
    """A connection that must come about sooner than its answers."""

    def connect(self) -> None:
        self.timeout = CONNECT
        super().connect()
        self.sock.settimeout(TOTAL)


class _TimedSecure(_Timed, HTTPSConnection):
    """The same with TLS: ``HTTPSConnection.connect`` comes next."""


class _Plain(request.HTTPHandler):
    def http_open(self, req: request.Request) -> HTTPResponse:
        return self.do_open(_Timed, req)


class _Secure(request.HTTPSHandler):
    def https_open(self, req: request.Request) -> HTTPResponse:
        return self.do_open(_TimedSecure, req, context=ssl.create_default_context())


class _Redirects(request.HTTPRedirectHandler):
    """Follows redirects; the token goes on only where they stay on the hub."""

    http_error_308 = request.HTTPRedirectHandler.http_error_302  # Python 3.10 has none

    def redirect_request(
        self, req: request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in (old.scheme, "https"):
            raise URLError(f"it redirects to {new.scheme}")
        if code == 308:  # which Python 3.10 does not know
            code = 307
        following = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        secret = req.unredirected_hdrs.get("Authorization")
        if following is not None and secret and new[:2] == old[:2]:
            following.add_unredirected_header("Authorization", secret)
        return following


@lru_cache(maxsize=1)
def _opener() -> request.OpenerDirector:
    """Opens web addresses, through the user's proxy if there is one, and nothing else."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        _Plain,
        _Secure,
        _Redirects,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
