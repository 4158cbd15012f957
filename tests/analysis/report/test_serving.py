"""The live report: this machine alone, with the token, the same page, anew when the results change."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from segbench.analysis.report.serving import LivePage, serving
from segbench.errors import SegbenchError

HTML = "<meta content=\"default-src 'none'\"><body>run {}</body></html>"


class Results:
    """What changes while a grid runs."""

    def __init__(self) -> None:
        self.runs, self.built = 1, 0

    def build(self) -> str:
        if not self.runs:
            raise SegbenchError("no results yet")
        self.built += 1
        return HTML.format(self.runs)


@pytest.fixture
def results() -> Results:
    return Results()


@pytest.fixture
def address(results: Results) -> Iterator[str]:
    with serving(LivePage(results.build, lambda: results.runs)) as address:
        yield address


def ask(address: str, path: str | None = None, host: str | None = None) -> tuple[int, str, dict[str, str]]:
    url = urlsplit(address)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=10)
    headers = {} if host is None else {"Host": host}
    connection.request("GET", f"/?{url.query}" if path is None else path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, dict(answer.getheaders())


def test_the_page_is_the_reports_with_a_script_that_asks_for_a_newer_one(address: str) -> None:
    status, text, headers = ask(address)
    assert status == 200
    assert "run 1" in text
    assert "default-src 'none'; connect-src 'self'" in text
    assert text.endswith("</script>\n</body></html>")
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?tokeN=x", "?token=%ff%00"])
@pytest.mark.parametrize("path", ["/", "/version", "/other"])
def test_without_the_token_nothing_is_told(address: str, results: Results, path: str, query: str) -> None:
    status, text, _ = ask(address, path + query)
    assert status == 403
    assert "run" not in text.replace("segbench printed", "")
    assert results.built == 0


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "localhost", "127.0.0.1:1", "", "[::1]:{port}"]
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(address: str, host: str) -> None:
    assert ask(address, host=host.format(port=urlsplit(address).port))[0] == 403


def test_localhost_is_this_machine(address: str) -> None:
    assert ask(address, host=f"localhost:{urlsplit(address).port}")[0] == 200


def test_it_is_built_anew_only_when_the_results_change(address: str, results: Results) -> None:
    query = urlsplit(address).query
    version = ask(address, f"/version?{query}")[1]
    assert ask(address)[1] == ask(address)[1]
    assert results.built == 1
    results.runs = 2
    assert ask(address, f"/version?{query}")[1] != version
    assert "run 2" in ask(address)[1]
    assert results.built == 2


def test_before_the_first_results_the_page_waits_for_them(address: str, results: Results) -> None:
    results.runs = 0
    status, text, headers = ask(address)
    assert status == 503
    assert "no results yet" in text
    assert headers["Refresh"] == "3"
    results.runs = 1
    assert ask(address)[0] == 200


def test_it_listens_on_the_loopback_interface_alone_and_ends_with_its_context(results: Results) -> None:
    with serving(LivePage(results.build, lambda: 0)) as address:
        assert urlsplit(address).hostname == "127.0.0.1"
        port = urlsplit(address).port
        with (
            pytest.raises(SegbenchError, match=f"cannot serve on port {port}: "),
            serving(LivePage(results.build, lambda: 0), int(port or 0)),
        ):
            pass
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", int(port or 0)), timeout=2):
        pass


def test_two_servers_have_two_tokens(results: Results) -> None:
    page = LivePage(results.build, lambda: 0)
    with serving(page) as one, serving(page) as two:
        assert urlsplit(one).query != urlsplit(two).query
        assert len(urlsplit(one).query) > 30
        assert ask(two, f"/?{urlsplit(one).query}")[0] == 403
