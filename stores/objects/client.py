"""Requests to an object store. This is the only file that imports obstore."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from fnmatch import fnmatchcase
from glob import has_magic
from typing import Any, NamedTuple, TypedDict

from protalign.core.errors import StoreError
from protalign.core.printing import one_line, without_secrets, without_users
from protalign.stores.format.advice import RESTORE

#: Beginnings of URLs of object storage that conditional requests are made to.
SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")
#: Environment variables that name a service other than the usual one.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_ENDPOINT")
#: Environment variables with the credentials of each kind of service.
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
}
#: Texts in the errors of a service that refuses who asks, or of a client that does not know how to
#: ask: without credentials it looks for those of a machine in the cloud, at the address.
_REFUSALS = (
    "401 Unauthorized",
    "403 Forbidden",
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "169.254.169.254",
    "169.254.170.2",
    "metadata.google.internal",
    "token request",
    "redential",
    "Account must be specified",
)
#: A service's answer, and the name of the error in it.
_XML = re.compile(r"<\?xml.*?<Code>(\w{1,80})</Code>.*", re.DOTALL)
#: Tries after the first one, by the client; and tries in all of what the client makes only once.
_RETRIES, _TRIES = 6, 3
_LONGEST_FAULT = 300


class Timeouts(NamedTuple):
    """Seconds for one try of a request, and for the client's tries of it together."""

    one: float = 60.0
    all: float = 180.0


_TIMEOUTS = Timeouts()


class Version(TypedDict, total=False):
    """A version of an object, as conditional requests name it."""

    e_tag: str | None
    version: str | None


class ConditionError(StoreError):
    """An object is not the version that a request asked for: somebody else has written it."""


class MissingObjectError(StoreError):
    """An object does not exist."""


def is_object_url(url: str) -> bool:
    """Return whether a URL is one of object storage that stores can be written to.

    Examples
    --------
    >>> is_object_url("s3://bucket/store.zarr"), is_object_url("store.zarr"), is_object_url("ftp://a")
    (True, False, False)
    """
    return url.partition("://")[0].lower() in SCHEMES and "://" in url


def check_unsigned(url: str) -> None:
    """Raise StoreError for an address with a query, such as a signature: it is of one file.

    Examples
    --------
    >>> check_unsigned("s3://bucket/shard-?.zarr")
    """
    if shown(url) != without_users(url):
        raise StoreError(
            f"{shown(url)}: a store has no address with a query or a signature, which is of one "
            "file; give credentials in the environment, and take out of the URL what follows the ?"
        )


def open_bucket(url: str, timeouts: Timeouts = _TIMEOUTS) -> Any:
    """Return obstore's store of a URL; credentials come from the environment.

    Raise StoreError if obstore is missing, or the URL cannot be one.
    """
    if "@" in url.partition("://")[2].partition("/")[0] and url.lower().startswith("s3"):
        raise StoreError(
            f"{shown(url)}: it holds a password; give credentials in the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), and take them out of the URL"
        )
    check_unsigned(url)
    _check_endpoints(url)
    try:
        from obstore.store import from_url
    except ImportError:
        raise StoreError(
            f"{shown(url)}: object storage needs obstore; install it with "
            "`pip install 'protalign[cloud]'`"
        ) from None
    plain = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
    try:
        return from_url(
            url.rstrip("/"),
            client_options={"allow_http": plain, "timeout": timedelta(seconds=timeouts.one)},
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=timeouts.all),
            },
        )
    except Exception as error:  # obstore's, and those of its arguments
        raise StoreError(
            f"{shown(url)}: it cannot be opened ({fault_of(error)}); {advice_for(url, error)}"
        ) from None


def _check_endpoints(url: str) -> None:
    """Raise StoreError for an address of a service without a scheme, with which the client ends."""
    for name in _ENDPOINTS:
        value = os.environ.get(name, "")
        if value and not re.match(r"https?://[^/]", value, re.IGNORECASE):
            raise StoreError(
                f"{shown(url)}: the environment variable {name} is not an address; begin it with "
                "http:// or https://"
            )


def advice_for(url: str, error: Exception) -> str:
    """Return what to do about a service's error: check the credentials, or the address.

    Examples
    --------
    >>> advice_for("s3://lab/store.zarr", OSError("403 Forbidden: SignatureDoesNotMatch"))
    'check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)'
    >>> advice_for("s3://lab/store.zarr", OSError("connection refused"))
    'check the address and the connection'
    """
    if not any(text in str(error) for text in _REFUSALS):
        return "check the address and the connection"
    scheme = url.partition("://")[0].lower()
    kind = "s3" if scheme.startswith("s3") else "gs" if scheme == "gs" else "az"
    return f"check the credentials ({_CREDENTIALS[kind]})"


def exists(url: str) -> bool:
    """Return whether a store is at a URL of object storage."""
    try:
        Objects(url).get("zarr.json", 0, 1)
    except MissingObjectError:
        return False
    return True


def matching(pattern: str) -> list[str]:
    """Return the URLs of folders that match a pattern, in which ``*`` stands for no slash."""
    scheme, _, rest = pattern.partition("://")
    bucket, _, path = rest.partition("/")
    if has_magic(bucket):
        raise StoreError(f"{shown(pattern)}: a bucket is named without a pattern; give its name")
    objects = Objects(f"{scheme}://{bucket}")
    folders = [""]
    for part in path.rstrip("/").split("/"):
        if has_magic(part):
            below = (each for folder in folders for each in objects.folders(folder))
            folders = [each for each in below if fnmatchcase(each.rpartition("/")[2], part)]
        else:
            folders = [f"{folder}/{part}".lstrip("/") for folder in folders]
    return [f"{scheme}://{bucket}/{folder}" for folder in folders]


def zarr_store(url: str) -> Any:
    """Return Zarr's view of a URL of object storage, for reading."""
    bucket = open_bucket(url)
    from zarr.storage import ObjectStore

    return ObjectStore(bucket, read_only=True)


def shown(url: str) -> str:
    """Return a URL as it is printed: without the secrets in it."""
    return without_secrets(url)


def fault_of(error: Exception) -> str:
    """Return an error of a service in one line, without credentials.

    Examples
    --------
    >>> fault_of(OSError("403 Forbidden: <?xml ?><Error><Code>AccessDenied</Code></Error>"))
    '403 Forbidden: AccessDenied'
    """
    text = _XML.sub(r"\1", str(error).partition("Debug source:")[0])
    return shown(one_line(text, _LONGEST_FAULT))


class Objects:
    """The objects below a URL, by their keys: "sequences/hash/c.0.0".

    Requests that fail or time out are made again. A conditional request whose answer was lost
    fails the second time, since its first time has succeeded: then the object is read back.

    Parameters
    ----------
    url : str
        The address: ``s3://bucket/folder``.
    timeouts : Timeouts
        How long an answer is waited for.

    Raises
    ------
    StoreError
        obstore is missing, or the URL cannot be one.
    """

    def __init__(self, url: str, timeouts: Timeouts = _TIMEOUTS) -> None:
        self.url = shown(url)
        self._bucket = open_bucket(url, timeouts)
        import obstore

        self._obstore = obstore
        self._errors = obstore.exceptions

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield the key and the bytes of each object."""
        try:
            for page in self._obstore.list(self._bucket):
                yield from ((each["path"], each["size"]) for each in page)
        except Exception as error:
            raise self._unread("it cannot be listed", error) from None

    def folders(self, above: str) -> list[str]:
        """Return the keys up to the next slash below a folder, without that slash."""
        try:
            found = self._obstore.list_with_delimiter(self._bucket, above or None)
            return [*found["common_prefixes"]]
        except Exception as error:
            raise self._unread("it cannot be listed", error) from None

    def get(self, key: str, begin: int = 0, end: int = 0) -> tuple[bytes, Version]:
        """Return an object's bytes, or those of a range, and its version; MissingObjectError."""
        options: Any = {"range": (begin, end)} if end else None
        try:
            result = self._obstore.get(self._bucket, key, options=options)
            return bytes(result.bytes()), _version(result.meta)
        except (self._errors.NotFoundError, FileNotFoundError):
            raise MissingObjectError(f"{self.url}: {key} is missing; {RESTORE}") from None
        except Exception as error:
            raise self._unread(f"{key} cannot be read", error) from None

    def head(self, key: str) -> Version:
        """Return the version of an object."""
        try:
            return _version(self._obstore.head(self._bucket, key))
        except Exception as error:
            raise self._unread(f"{key} cannot be read", error) from None

    def put(self, key: str, content: bytes, over: Version | None) -> Version:
        """Write an object in place of the version that is known, None for none.

        Returns
        -------
        dict
            The new version.

        Raises
        ------
        ConditionError
            Somebody else has written it.
        StoreError
            The request failed, or the service makes no conditional ones.
        """
        try:
            written = self._tried(
                lambda: self._obstore.put(
                    self._bucket,
                    key,
                    content,
                    mode="create" if over is None else over,
                    use_multipart=False,
                )
            )
            return _version(written)
        except (self._errors.AlreadyExistsError, self._errors.PreconditionError, FileExistsError):
            return self._own(key, content)
        except (self._errors.NotSupportedError, NotImplementedError):
            raise self.unconditional() from None
        except (self._errors.NotFoundError, FileNotFoundError) as error:
            if over is None:
                raise self._failed(f"{key} cannot be written", error) from None
            raise self._changed(key) from None
        except Exception as error:
            raise self._failed(f"{key} cannot be written", error) from None

    def _own(self, key: str, content: bytes) -> Version:
        """Return the version of an object that a lost answer spoke of; else raise."""
        try:
            present, version = self.get(key)
        except MissingObjectError:
            raise self._changed(key) from None
        if present != content:
            raise self._changed(key)
        return version

    def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        try:
            self._tried(lambda: self._obstore.delete(self._bucket, key))
        except (self._errors.NotFoundError, FileNotFoundError):
            return
        except Exception as error:
            raise self._failed(f"{key} cannot be removed", error) from None

    def _tried(self, request: Callable[[], Any]) -> Any:
        """Make a request again if no answer came: the client does so only for those that read."""
        for pause in range(1, _TRIES):
            try:
                return request()
            except self._errors.GenericError:
                time.sleep(pause / 4)
        return request()

    def unconditional(self) -> StoreError:
        """Return the error for a service that makes no conditional requests."""
        return StoreError(
            f"{self.url}: the service does not honour conditional requests (If-Match and "
            "If-None-Match), so two writers could damage the store; write to a local folder, and "
            "copy it"
        )

    def _changed(self, key: str) -> ConditionError:
        return ConditionError(
            f"{self.url}: another process has written {key} meanwhile; nothing that was committed "
            "is lost: wait until that process is done, then run the same command again"
        )

    def _unread(self, fault: str, error: Exception) -> StoreError:
        """Return the error of a request that reads."""
        return StoreError(
            f"{self.url}: {fault} ({fault_of(error)}); {advice_for(self.url, error)}, then run the "
            "same command again"
        )

    def _failed(self, fault: str, error: Exception) -> StoreError:
        """Return the error of a request that writes."""
        return StoreError(f"{self._unread(fault, error)}: what was committed is kept")


def _version(meta: Any) -> Version:
    """Return what conditional requests need of an object's description."""
    found = Version()
    if meta.get("e_tag") is not None:
        found["e_tag"] = meta["e_tag"]
    if meta.get("version") is not None:
        found["version"] = meta["version"]
    return found
