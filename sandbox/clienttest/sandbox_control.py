"""The control API of the sandbox, and small checks, for the clients beside this."""

import json
import sys
import urllib.request

URL = sys.argv[1]


def control(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + "/control" + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as response:
        text = response.read()
    return json.loads(text) if text else None


def fault(**rule):
    control("POST", "/faults", rule)


def quantities():
    return [r["quantity"] for r in control("GET", "/records")["records"]]


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")
