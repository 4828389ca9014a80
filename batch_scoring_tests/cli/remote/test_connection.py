"""Deployments that do not answer, or are none, and how they are reached."""

import subprocess
from pathlib import Path

import pytest

from batch_scoring.cli.remote import connection as remote
from batch_scoring_tests.remote_deployment import Stranger, There, command


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("status abcdefgh", "where is the deployment? Pass --url https://… or set DAGSTER_UI_URL"),
        (
            "status abcdefgh --url localhost:3000",
            "--url is not the address of a web server: 'localhost:3000'; expected http",
        ),
        ("status abcdefgh --url http://u:secret@/x", "--url is not the address of a web server: 'http:///x'"),
        (
            "status abcdefgh --url http://h:99999",
            "--url is not the address of a web server: its host or port is invalid",
        ),
        ("status abcdefgh --url https://user:secret/et@h", "/ # ? @ must be percent-encoded"),
        ("status abcdefgh --url https://user:1/secret@h", "/ # ? @ must be percent-encoded"),
        ("status abcdefgh --url http://u:secret?x@h", "/ # ? @ must be percent-encoded"),
        ("status abcdefgh --url u:secret@h:3000", "/ # ? @ must be percent-encoded"),
        ("status abcdefgh --url http://h/runs?x=1", "--url has more than an address"),
        (
            "status abcdefgh --url http://h --header secret",
            "--header has a line that is not a header: expected 'Name: value'",
        ),
    ],
)
def test_an_address_that_is_none_is_one_line_without_secrets(arguments: str, says: str) -> None:
    said = command(arguments)
    assert said.code == 2 and says in said.line and "secret" not in said.err


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("html", "answers, but not as Dagster does (text/html): --url is that of Dagster's UI, path prefix included"),
        ("404", "has no Dagster at this address (HTTP 404)"),
        ("401", "denies access (HTTP 401): pass --header 'Authorization: …' or set DAGSTER_UI_HEADERS"),
        ("403", "denies access (HTTP 403)"),
        ("302", "redirects to https://login.example.org/: pass that as --url; if it is a login page, pass a --header"),
        ("502", "is unavailable (HTTP 502): try again later"),
        ("errors", "answers, but not as Dagster does: Cannot query field"),
        ("empty", "answers, but not as Dagster does: no 'partitionBackfillOrError' in its answer"),
        ("number", "answers, but not as Dagster does"),
    ],
)
def test_a_server_that_is_no_dagster_is_one_line(stranger: Stranger, kind: str, says: str) -> None:
    for what in ("status", "wait"):
        said = command(f"{what} abcdefgh", f"{stranger.url}/{kind}")
        assert said.code == 3 and said.line.startswith(f"{stranger.url}/{kind} ") and says in said.line
        assert "secret" not in said.err


def test_nobody_there_is_one_line(there: There) -> None:
    closed = command("wait abcdefgh --url http://u:secret@127.0.0.1:1/")
    assert closed.code == 3 and "secret" not in closed.err
    assert closed.line.startswith("http://127.0.0.1:1 does not answer: Connection refused; is it running, and is --url")
    unknown = command("status abcdefgh --url http://nowhere.invalid")
    assert unknown.code == 3 and unknown.line.startswith("http://nowhere.invalid does not answer: ")
    without_prefix = command("status abcdefgh", there.url.removesuffix("/dagster"))
    assert without_prefix.code == 3 and "has no Dagster at this address (HTTP 404)" in without_prefix.line
    not_tls = command("status abcdefgh", there.url.replace("http:", "https:"))
    assert not_tls.code == 3 and "is it http:// and not https://?" in not_tls.line


def test_a_certificate_that_nobody_vouches_for_is_refused_and_one_of_an_own_authority_is_not(tmp_path: Path) -> None:
    certificate = tmp_path / "own.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
            "-keyout",
            certificate,
            "-out",
            tmp_path / "authority.pem",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ],
        check=True,
        capture_output=True,
    )
    certificate.write_bytes(certificate.read_bytes() + (tmp_path / "authority.pem").read_bytes())
    place = Stranger(certificate)
    try:
        refused = command("status abcdefgh", f"{place.url}/401")
        assert refused.code == 3 and "certificate verify failed" in refused.line
        assert "set REQUESTS_CA_BUNDLE" in refused.line and place.headers == []
        trusted = command("status abcdefgh", f"{place.url}/401", REQUESTS_CA_BUNDLE=str(tmp_path / "authority.pem"))
        assert "HTTP 401" in trusted.line
    finally:
        place.stop()


def test_headers_come_from_the_environment_and_from_options_and_a_netrc_does_not_replace_them(
    stranger: Stranger, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login somebody password else\n")
    address = remote.address(f"{stranger.url}/empty", ["X-Team: b"])
    assert address.headers == {"X-Team": "b"}
    said = command(
        "status abcdefgh --header X-Team:b",
        f"{stranger.url}/empty",
        NETRC=str(netrc),
        DAGSTER_UI_HEADERS="Authorization: Bearer of the night\n\nX-TEAM: a\n",
    )
    assert said.code == 3
    sent = stranger.headers[-1]
    assert sent["Authorization"] == "Bearer of the night" and sent["X-Team"] == "b"
