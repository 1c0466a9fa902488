"""Three nodes of Debian's Patroni with PostgreSQL keep their state in the servers
of ENDPOINTS, as etcd3: they choose a leader, replicate, are told to switch,
lose their leader by kill -9, and see their servers killed.

PostgreSQL refuses root; for root the nodes run as nobody.
"""

import base64
import glob
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import psycopg2

ENDPOINTS = os.environ["ENDPOINTS"].split(",")
BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]

PATIENCE = 240
"""Seconds that anything may take on a busy machine; a failover takes 20 by itself."""

UNPRIVILEGED = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}


def request(url, body=None, method=None):
    """The answer's status and JSON or text; 0 when there is none."""
    data = None if body is None else json.dumps(body).encode()
    ask = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(ask, timeout=PATIENCE) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    except OSError:
        return 0, None
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def until(what, condition):
    """Waits for a condition and returns what it then says."""
    end = time.monotonic() + PATIENCE
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not {what} within {PATIENCE} s")
        time.sleep(0.1)


class Node:
    """A Patroni and its PostgreSQL."""

    claims = []

    def __init__(self, root, number):
        self.name, self.process = f"p{number}", None
        self.dir = os.path.join(root, self.name)
        os.mkdir(self.dir)
        self.api, self.port = self.reserve(), self.reserve()
        self.settings = os.path.join(self.dir, "patroni.json")
        parameters = {
            "fsync": "off", "shared_buffers": "16MB", "max_connections": 20, "unix_socket_directories": self.dir,
            "wal_log_hints": "on",
        }
        with open(self.settings, "w") as f:  # JSON is YAML
            json.dump({
                "scope": "compat", "namespace": "/service/", "name": self.name,
                "restapi": {"listen": f"127.0.0.1:{self.api}", "connect_address": f"127.0.0.1:{self.api}"},
                "etcd3": {"hosts": [e.removeprefix("http://") for e in ENDPOINTS]},
                "bootstrap": {
                    "dcs": {
                        "ttl": 20, "loop_wait": 2, "retry_timeout": 5,
                        "postgresql": {"use_pg_rewind": True, "parameters": parameters},
                    },
                    "initdb": [{"encoding": "UTF8"}, {"auth": "trust"}],
                    "pg_hba": ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
                },
                "postgresql": {
                    "listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}",
                    "data_dir": os.path.join(self.dir, "data"), "bin_dir": BIN, "pgpass": os.path.join(self.dir, "pgpass"),
                    "authentication": {
                        "superuser": {"username": "postgres", "password": "a"},
                        "replication": {"username": "replicator", "password": "b"},
                    },
                },
            }, f)
        if UNPRIVILEGED:
            shutil.chown(self.dir, "nobody", "nogroup")

    @classmethod
    def reserve(cls):
        """A free TCP port, kept by a UDP socket of the same number."""
        while True:
            port = random.randrange(12000, 32000)
            with socket.socket() as tcp:
                claim = socket.socket(type=socket.SOCK_DGRAM)
                try:
                    claim.bind(("127.0.0.1", port))
                    tcp.bind(("127.0.0.1", port))
                except OSError:
                    claim.close()
                    continue
            cls.claims.append(claim)
            return port

    def start(self):
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.process = subprocess.Popen(
                ["/usr/bin/python3", "-W", "ignore", "/usr/bin/patroni", self.settings],
                stdout=log, stderr=log, cwd=self.dir, env={"PATH": os.environ["PATH"], "HOME": self.dir}, **UNPRIVILEGED)

    def kill(self):
        """Ends Patroni, then PostgreSQL, as the loss of their machine does."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
        try:
            with open(os.path.join(self.dir, "data", "postmaster.pid")) as f:
                pid = int(f.readline())
        except FileNotFoundError:
            return
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
        for each in [pid, *map(int, children)]:
            try:
                os.kill(each, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def is_leader(self):
        return request(f"http://127.0.0.1:{self.api}/leader")[0] == 200

    def is_replica(self):
        return request(f"http://127.0.0.1:{self.api}/replica")[0] == 200

    def sql(self, statement):
        """The first column of what it says; nothing when it cannot be asked."""
        try:
            connection = psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", connect_timeout=PATIENCE)
        except psycopg2.OperationalError:
            return None
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return [row[0] for row in cursor.fetchall()] if cursor.description else []
        except psycopg2.Error:
            return None
        finally:
            connection.close()


def store(call, body):
    """Asks the servers by the JSON gateway."""
    status, answer = request(f"{ENDPOINTS[0]}/v3/{call}", body)
    if status != 200:
        raise AssertionError(f"{call}: {status} {answer}")
    return answer


def coded(text):
    return base64.b64encode(text.encode()).decode()


class Patroni(unittest.TestCase):
    def setUp(self):
        store("kv/deleterange", {"key": coded("/service/"), "range_end": coded("/service0")})
        root = tempfile.mkdtemp(prefix="compat-patroni-")
        os.chmod(root, 0o755)
        self.addCleanup(shutil.rmtree, root)
        self.nodes = [Node(root, i) for i in range(3)]
        self.addCleanup(self.end)
        self.rows = []

    def end(self):
        for node in self.nodes:
            node.kill()
        if any(error for _, error in self._outcome.result.failures + self._outcome.result.errors):
            for node in self.nodes:
                with open(os.path.join(node.dir, "log")) as f:
                    print(f"--- {node.name}", *f.readlines()[-60:], sep="\n")

    def leader(self, among=None):
        def only():
            # They are asked one after the other, so while it changes two may say yes.
            leaders = [n for n in among or self.nodes if n.is_leader()]
            return len(leaders) == 1 and leaders[0]
        return until("one leader", only)

    def write(self):
        """Adds a row at the leader and waits until all have all rows."""
        self.rows.append(len(self.rows))
        def inserted():
            node = self.leader()
            return node.sql(f"INSERT INTO seen VALUES ({self.rows[-1]}) ON CONFLICT DO NOTHING") is not None
        until("written", inserted)
        for node in self.nodes:
            if node.process:
                until(f"replicated to {node.name}", lambda: node.sql("SELECT n FROM seen ORDER BY n") == self.rows)

    def stored(self, key):
        """A key that Patroni keeps."""
        kvs = store("kv/range", {"key": coded(f"/service/compat/{key}")}).get("kvs")
        return kvs and kvs[0]

    def test_cluster(self):
        for node in self.nodes:
            node.start()
        first = self.leader()
        until("created", lambda: first.sql("CREATE TABLE IF NOT EXISTS seen (n int PRIMARY KEY)") is not None)
        for node in self.nodes:
            if node is not first:
                until(f"{node.name} a replica", node.is_replica)
        self.write()
        kv = self.stored("leader")
        self.assertEqual(base64.b64decode(kv["value"]).decode(), first.name)
        self.assertNotEqual(int(kv.get("lease", 0)), 0)

        with self.subTest("settings reach all nodes"):
            self.assertEqual(request(f"http://127.0.0.1:{first.api}/config", {"postgresql": {"parameters": {"work_mem": "5MB"}}}, "PATCH")[0], 200)
            for node in self.nodes:
                until(f"set at {node.name}", lambda: node.sql("SHOW work_mem") == ["5MB"])

        second = next(n for n in self.nodes if n is not first)
        status, answer = request(f"http://127.0.0.1:{first.api}/switchover", {"leader": first.name, "candidate": second.name})
        self.assertEqual(status, 200, answer)
        until("switched over", second.is_leader)
        until("the old leader a replica", first.is_replica)
        self.write()

        second.kill()
        third = self.leader(among=[n for n in self.nodes if n is not second])
        self.write()
        second.start()
        until("the killed leader a replica", second.is_replica)
        self.write()

        for member in range(len(ENDPOINTS)):
            self.assertEqual(request(f"{os.environ['CONTROL']}/restart?member={member}", {})[0], 200)
            self.write()

        listed = subprocess.run(["patronictl", "-c", third.settings, "list", "-f", "json"], capture_output=True, text=True, check=True).stdout
        self.assertEqual(sorted(m["Member"] for m in json.loads(listed)), [n.name for n in self.nodes])
        self.assertEqual([m["Role"] for m in json.loads(listed)].count("Leader"), 1)
        history = until("a history", lambda: self.stored("history"))
        self.assertGreaterEqual(len(json.loads(base64.b64decode(history["value"]))), 2)  # one switch-over, one failover


if __name__ == "__main__":
    unittest.main(verbosity=2)
