"""Connection to a remote Dagster deployment: address, requests, error messages.

All requests use the GraphQL interface of its web server through the client of dagster-graphql. The queries are in
`jobs.py` and `runs.py`; this module knows nothing of pipelines, specs or data.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from batch_scoring.errors import UnreachableError, WrongCommandError

URL_VARIABLE = "DAGSTER_UI_URL"
HEADERS_VARIABLE = "DAGSTER_UI_HEADERS"
"""Headers of each request, one per line: a secret in it appears neither in the shell's history nor in process lists."""
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
"""Timeouts of a connection and of an answer."""
_HOST = re.compile(r"[\w.-]+|[0-9a-f:.%]+")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e\xa1-\xff](?:[ \t\x21-\x7e\xa1-\xff]*))")


@dataclass(frozen=True)
class Address:
    """The address of a deployment's web server."""

    url: str
    """Of the UI, with its path prefix, without a trailing slash and without a password."""
    graphql: str
    """Of the GraphQL interface, with user and password if they were given."""
    headers: Mapping[str, str]

    def link(self, path: str) -> str:
        """The address of a page of the UI."""
        return f"{self.url}/{path}"


def address(url: str | None, headers: Sequence[str] = ()) -> Address:
    """The address from the options and the environment.

    Args:
        url: of the UI; `DAGSTER_UI_URL` if None.
        headers: as `Name: value`; they replace those of `DAGSTER_UI_HEADERS` with the same name.

    Raises:
        WrongCommandError: the address is missing, or it or a header is invalid. The value of a header is never shown.
    """
    source = "--url" if url else URL_VARIABLE
    text = (url or os.environ.get(URL_VARIABLE, "")).strip()
    if not text:
        raise WrongCommandError(f"where is the deployment? Pass --url https://… or set {URL_VARIABLE}")
    example = "expected http:// or https://, a host and, if the UI has one, its path prefix"
    encoded = "in a user name or password / # ? @ must be percent-encoded (%2F %23 %3F %40)"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may quote a password
        raise WrongCommandError(
            f"{source} is not the address of a web server: its host or port is invalid; {example}; {encoded}"
        ) from None
    if "@" in parts.path + parts.query + parts.fragment:  # the text before it may be half a password
        raise WrongCommandError(
            f"{source} is not the address of a web server: an @ after the host; {example}; {encoded}"
        )
    if parts.scheme not in ("http", "https") or not host or not _HOST.fullmatch(host):
        raise WrongCommandError(f"{source} is not the address of a web server: {_without_password(text)!r}; {example}")
    if parts.query or parts.fragment:
        raise WrongCommandError(f"{source} has more than an address: {_without_password(text)!r}; {example}")
    prefix = parts.path.rstrip("/").removesuffix("/graphql")
    place = f"[{host}]" if ":" in host else host
    place += f":{port}" if port else ""
    login, at, _ = parts.netloc.rpartition("@")
    given = [(line, HEADERS_VARIABLE) for line in os.environ.get(HEADERS_VARIABLE, "").splitlines() if line.strip()]
    given += [(line, "--header") for line in headers]
    return Address(
        url=f"{parts.scheme}://{place}{prefix}",
        graphql=f"{parts.scheme}://{login}{at}{place}{prefix}/graphql",
        headers={name.title(): value for name, value in (_header(line, source) for line, source in given)},
    )


def first_line(text: str | None) -> str:
    """The first line of a message, with the next one if the first ends with a colon."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else "no message"


def python_error(error: Mapping[str, Any]) -> str:
    """A Python error of the deployment in one line: that of its innermost cause."""
    return first_line([error, *(error.get("causes") or ())][-1].get("message"))


class Remote:
    """A connection to a deployment."""

    def __init__(self, address: Address) -> None:
        from dagster_graphql import DagsterGraphQLClient
        from gql.transport.requests import RequestsHTTPTransport

        self.address = address
        parts = urlsplit(address.url)
        # a .netrc must not replace the header that was asked for
        auth = (lambda request: request) if "Authorization" in address.headers else None
        self._transport = RequestsHTTPTransport(
            url=address.graphql,
            headers=dict(address.headers),
            auth=auth,  # type: ignore[arg-type]
            allow_redirects=False,  # a redirect to a login page would count as an answer, and receive the headers
        )
        self._transport.default_timeout = (CONNECT_SECONDS, ANSWER_SECONDS)  # type: ignore[assignment]
        self.client = DagsterGraphQLClient(
            parts.hostname or "",
            port_number=parts.port,
            transport=self._transport,
            use_https=parts.scheme == "https",
            path_prefix=parts.path,
        )

    def ask(self, field: str, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a query, and return the field of that name from the answer.

        Raises:
            UnreachableError: the answer is missing, or is an error of the deployment itself.
        """
        from dagster_graphql import DagsterGraphQLClientError

        try:
            answer = self.client._execute(query, dict(variables or {}))
        except DagsterGraphQLClientError as error:
            raise self.explain(error) from error
        found = answer.get(field) if isinstance(answer, dict) else None
        if not isinstance(found, dict):
            raise UnreachableError(f"{self.address.url} answers, but not as Dagster does: no {field!r} in its answer")
        if found.get("__typename") in ("PythonError", "UnauthorizedError"):
            raise self.refused(found)
        return found

    def refused(self, answer: Mapping[str, Any]) -> UnreachableError:
        """The exception for an error in the answer."""
        if answer.get("__typename") == "UnauthorizedError":
            return UnreachableError(f"{self.address.url} does not allow it: {python_error(answer)}", is_denied=True)
        return UnreachableError(f"{self.address.url} has an error: {python_error(answer)}")

    def explain(self, error: Exception) -> UnreachableError:
        """The exception that explains an error of the client."""
        from gql.transport import exceptions as gql_errors

        url, cause = self.address.url, error.__cause__ or error
        if isinstance(cause, gql_errors.TransportServerError):
            return self._of_status(cause.code or 0)
        if isinstance(cause, gql_errors.TransportConnectionFailed):
            return self._of_connection(cause.__cause__ or cause)
        if isinstance(cause, gql_errors.TransportQueryError):
            said = cause.errors[0] if cause.errors else None
            message = first_line(said.get("message") if isinstance(said, dict) else str(said))
            return UnreachableError(f"{url} answers, but not as Dagster does: {message}")
        headers: Mapping[str, str] = self._transport.response_headers or {}
        if "Location" in headers:
            to = _without_password(headers["Location"].partition("?")[0])
            return UnreachableError(
                f"{url} redirects to {to}: pass that as --url; if it is a login page, pass a --header with a token"
            )
        kind = headers.get("Content-Type", "").partition(";")[0] or "no JSON"
        return UnreachableError(
            f"{url} answers, but not as Dagster does ({kind}): --url is that of Dagster's UI, path prefix included"
        )

    def _of_status(self, status: int) -> UnreachableError:
        url = self.address.url
        if status in (401, 403):
            how = f"pass --header 'Authorization: …' or set {HEADERS_VARIABLE}"
            return UnreachableError(f"{url} denies access (HTTP {status}): {how}", is_denied=True)
        if status == 429 or status >= 500:
            return UnreachableError(f"{url} is unavailable (HTTP {status}): try again later", in_doubt=True)
        return UnreachableError(
            f"{url} has no Dagster at this address (HTTP {status}): --url is that of Dagster's UI, path prefix included"
        )

    def _of_connection(self, cause: BaseException) -> UnreachableError:
        import requests

        url, text = self.address.url, str(cause)
        if isinstance(cause, requests.exceptions.SSLError):
            found = re.search(r"\[SSL[^\]]*\] ([^(]+)", text)
            what = found[1].strip() if found else first_line(text)
            of_certificate = "check the address; for an authority of your own set REQUESTS_CA_BUNDLE"
            advice = of_certificate if "certificate" in what else "is it http:// and not https://?"
            return UnreachableError(f"{url} cannot be reached over TLS: {what}; {advice}")
        if isinstance(cause, requests.exceptions.ConnectTimeout):
            return UnreachableError(
                f"{url} does not answer within {CONNECT_SECONDS:.0f} s: check address, network and firewalls"
            )
        if isinstance(cause, requests.exceptions.Timeout):
            return UnreachableError(f"{url} gave no answer within {ANSWER_SECONDS:.0f} s: try again", in_doubt=True)
        found = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)", text)
        what = found[1].strip() if found else "the connection broke off"
        was_sent = "NewConnectionError" not in text and "NameResolutionError" not in text
        advice = "try again" if was_sent else f"is it running, and is --url (or {URL_VARIABLE}) its address?"
        return UnreachableError(f"{url} does not answer: {what}; {advice}", in_doubt=was_sent)


def _header(line: str, source: str) -> tuple[str, str]:
    found = _HEADER.fullmatch(line.strip())
    if not found:
        raise WrongCommandError(f"{source} has a line that is not a header: expected 'Name: value' on one line")
    return found[1], found[2]


def _without_password(url: str) -> str:
    return re.sub(r"[^/@]+@", "", url)
