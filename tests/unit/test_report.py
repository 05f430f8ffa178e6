"""A failed workflow files one issue, against a stand-in for GitHub's API."""

import http.server
import json
import threading

import pytest
import report


@pytest.fixture
def github(monkeypatch):
    issues, calls = [{"number": 7, "title": "An old one", "html_url": "there/7"}], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, content):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def do_GET(self):
            calls.append(("GET", self.path, None))
            self.answer(issues)

        def do_POST(self):
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            calls.append(("POST", self.path, content))
            assert self.headers["Authorization"] == "Bearer secret"
            self.answer({"html_url": "there/8"})

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
        monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
        monkeypatch.setenv("GITHUB_RUN_ID", "42")
        monkeypatch.setenv("GITHUB_TOKEN", "secret")
        yield calls
        server.shutdown()


def test_a_new_failure_opens_an_issue_that_names_the_run(github):
    assert report.report("A chapter fails") == "there/8"
    method, path, content = github[-1]
    assert (method, path, content["title"]) == ("POST", "/repos/owner/name/issues", "A chapter fails")
    assert "https://github.com/owner/name/actions/runs/42" in content["body"]


def test_a_failure_that_is_known_gets_a_comment(github):
    assert report.report("An old one") == "there/7"
    assert github[-1][1] == "/repos/owner/name/issues/7/comments"


def test_outside_a_workflow_it_says_what_is_missing(monkeypatch, capsys):
    for name in report.NEEDED:
        monkeypatch.delenv(name, raising=False)
    assert report.main() == 1
    assert "GITHUB_TOKEN" in capsys.readouterr().err
