"""What the tests of both clients share: where the servers are."""

import os
import unittest
import urllib.parse
import urllib.request

SERVERS = [(u.hostname, u.port) for u in map(urllib.parse.urlsplit, os.environ["ENDPOINTS"].split(","))]

PATIENCE = 60
"""Seconds that an answer may take on a busy machine."""


def restart(member):
    """Kills a member as kill -9 does, and waits until it serves again."""
    request = urllib.request.Request(f"{os.environ['CONTROL']}/restart?member={member}", method="POST")
    with urllib.request.urlopen(request, timeout=5 * PATIENCE):
        pass


class Case(unittest.TestCase):
    """Each test has the first server's address, and keys of its own."""

    def setUp(self):
        self.host, self.port = SERVERS[0]
        self.at = self.id().rsplit(".", 2)[-2] + "/" + self._testMethodName + "/"
