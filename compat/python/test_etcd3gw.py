"""python3-etcd3gw of Debian, a client of the JSON gateway."""

import os
import unittest

from base import PATIENCE, SERVERS, Case, restart
from etcd3gw.client import Etcd3Client
from etcd3gw.exceptions import ConnectionFailedError, Etcd3Exception
from etcd3gw.utils import _encode


class Gateway(Case):
    api_path = "/v3/"

    def setUp(self):
        super().setUp()
        self.client = Etcd3Client(host=self.host, port=self.port, timeout=PATIENCE, api_path=self.api_path)
        self.client.delete_prefix(self.at)

    def test_keys(self):
        c, a = self.client, self.at + "a"
        self.assertEqual(c.get(a), [])
        self.assertTrue(c.put(a, b"\x00\xff"))
        self.assertEqual(c.get(a), [b"\x00\xff"])
        (value, meta), = c.get(a, metadata=True)
        self.assertEqual((value, meta["key"], meta["version"]), (b"\x00\xff", a.encode(), "1"))
        self.assertEqual(meta["create_revision"], meta["mod_revision"])
        self.assertFalse(c.create(a, "1"))
        self.assertTrue(c.create(self.at + "b", "1"))
        self.assertTrue(c.replace(self.at + "b", "1", "2"))
        self.assertFalse(c.replace(self.at + "b", "1", "3"))
        self.assertTrue(c.put(self.at + "empty", ""))
        self.assertEqual(c.get(self.at + "empty"), [b""])
        self.assertTrue(c.delete(a))
        self.assertFalse(c.delete(a))
        self.assertTrue(c.delete_prefix(self.at))
        self.assertEqual(c.get_prefix(self.at), [])

    def test_ranges(self):
        c = self.client
        for key, value in (("c", "1"), ("a", "3"), ("b", "2")):
            c.put(self.at + key, value)
        for order, target, want in (
            (None, None, "abc"), ("descend", "key", "cba"), ("ascend", "value", "cba"), ("ascend", "create", "cab"),
            ("descend", "mod", "bac"),
        ):
            found = c.get_prefix(self.at, sort_order=order, sort_target=target)
            self.assertEqual("".join(meta["key"].decode()[-1] for _, meta in found), want, target)
        self.assertEqual(len(c.get_all()), len(c.get_all(sort_order="descend")))
        answer = c.get(self.at, range_end=_encode(self.at + "z"), limit=1)
        self.assertEqual(answer, [b"3"])

    def test_transactions(self):
        c, a = self.client, _encode(self.at + "a")
        answer = c.transaction({
            "compare": [{"key": a, "target": "VERSION", "version": 0}],
            "success": [{"request_put": {"key": a, "value": _encode("1")}}, {"requestRange": {"key": a}}],
            "failure": []})
        self.assertTrue(answer["succeeded"])
        self.assertEqual(answer["responses"][1]["response_range"]["kvs"][0]["value"], _encode("1"))
        self.assertNotIn("succeeded", c.transaction({"compare": [{"key": a, "target": "MOD", "mod_revision": "1"}]}))
        with self.assertRaises(Etcd3Exception) as refused:
            c.transaction({"success": [{"request_put": {"key": a}}] * 2})
        self.assertIn("etcdserver: duplicate key given in txn request", refused.exception.detail_text)
        with self.assertRaises(Etcd3Exception):
            c.transaction({"success": 1})

    def test_leases(self):
        c = self.client
        lease = c.lease(60)
        c.put(self.at + "a", "1", lease=lease)
        self.assertTrue(0 < lease.ttl() <= 60)
        self.assertEqual(lease.refresh(), 60)
        self.assertEqual(lease.keys(), [(self.at + "a").encode()])
        self.assertTrue(lease.revoke())
        self.assertEqual((c.get(self.at + "a"), lease.ttl(), lease.refresh(), lease.keys()), ([], -1, -1, []))
        with self.assertRaises(Etcd3Exception) as gone:
            lease.revoke()
        self.assertIn("etcdserver: requested lease not found", gone.exception.detail_text)

    def test_locks(self):
        lock, other = self.client.lock(self.at, ttl=60), self.client.lock(self.at, ttl=60)
        self.assertTrue(lock.acquire())
        self.assertTrue(lock.is_acquired())
        self.assertFalse(other.acquire())
        self.assertEqual(lock.refresh(), 60)
        self.assertFalse(other.release())
        self.assertTrue(lock.release())
        with other:
            self.assertTrue(other.is_acquired())
        self.assertFalse(other.is_acquired())

    def test_watches(self):
        c, a = self.client, self.at + "a"
        c.put(a, "0")
        rev = int(c.get(a, metadata=True)[0][1]["mod_revision"])
        events, cancel = c.watch_prefix(self.at, start_revision=rev, prev_kv=True)
        # The client takes each piece of the body for one message, so they have to
        # come as such, also when there are many at once.
        first = next(events)
        self.assertEqual((first["kv"]["key"], first["kv"]["value"]), (a.encode(), b"0"))
        for i in range(50):
            c.put(a, str(i))
            self.assertEqual(next(events)["kv"]["value"], str(i).encode())
        c.delete(a)
        last = next(events)
        self.assertEqual((last["type"], "value" in last["kv"], last["prev_kv"]["value"]), ("DELETE", False, _encode("49")))
        cancel()
        self.assertEqual(c.watch_once(a, timeout=PATIENCE, start_revision=rev)["kv"]["value"], b"0")

    def test_status(self):
        c = self.client
        self.assertRegex(c.status()["version"], r"^3\.7\.")
        members = c.members()
        self.assertEqual(sorted(u for m in members for u in m["clientURLs"]), sorted(os.environ["ENDPOINTS"].split(",")))
        self.assertEqual(len(members), len(SERVERS))

    def test_restart(self):
        self.client.put(self.at + "a", "1")
        restart(0)
        try:
            self.assertEqual(self.client.get(self.at + "a"), [b"1"])
        except ConnectionFailedError:  # the connection from before
            self.assertEqual(self.client.get(self.at + "a"), [b"1"])


@unittest.skipIf(os.environ["SERVER"] == "etcd", "etcd 3.7 has /v3 only")
class GatewayAlpha(Gateway):
    """The client's own default, which etcd had until 3.4."""

    api_path = "/v3alpha/"


@unittest.skipIf(os.environ["SERVER"] == "etcd", "etcd 3.7 has /v3 only")
class GatewayBeta(Gateway):
    api_path = "/v3beta/"


if __name__ == "__main__":
    unittest.main(verbosity=2)
