"""python3-etcd3 of Debian, a client of the gRPC API."""

import io
import os
import queue
import unittest

import etcd3
import etcd3.exceptions as exceptions
import grpc
from base import PATIENCE, SERVERS, Case, restart


class Client(Case):
    def setUp(self):
        super().setUp()
        self.client = etcd3.client(host=self.host, port=self.port, timeout=PATIENCE)
        self.addCleanup(self.client.close)
        self.client.delete_prefix(self.at)

    def test_keys(self):
        c, a = self.client, self.at + "a"
        self.assertEqual(c.get(a), (None, None))
        first = c.put(a, "1")
        value, meta = c.get(a)
        self.assertEqual((value, meta.key, meta.version, meta.lease_id), (b"1", a.encode(), 1, 0))
        self.assertEqual((meta.create_revision, meta.mod_revision), (first.header.revision,) * 2)
        self.assertEqual(c.put(a, b"\x00\xff", prev_kv=True).prev_kv.value, b"1")
        self.assertEqual(c.get(a, serializable=True)[0], b"\x00\xff")
        self.assertTrue(c.put_if_not_exists(self.at + "b", "1"))
        self.assertFalse(c.put_if_not_exists(self.at + "b", "2"))
        self.assertTrue(c.replace(self.at + "b", "1", "3"))
        self.assertFalse(c.replace(self.at + "b", "1", "4"))
        self.assertEqual(c.get(self.at + "b")[0], b"3")
        self.assertEqual(c.delete(a, prev_kv=True, return_response=True).prev_kvs[0].value, b"\x00\xff")
        self.assertFalse(c.delete(a))
        self.assertEqual(c.delete_prefix(self.at).deleted, 1)

    def test_ranges(self):
        c = self.client
        for key, value in (("c", "1"), ("a", "3"), ("b", "2")):
            c.put(self.at + key, value)

        def keys(answers):
            return "".join(meta.key.decode()[-1] for _, meta in answers)

        self.assertEqual(keys(c.get_prefix(self.at)), "abc")
        for order, target, want in (
            ("descend", "key", "cba"), ("ascend", "value", "cba"), ("ascend", "create", "cab"),
            ("descend", "mod", "bac"),
        ):
            self.assertEqual(keys(c.get_prefix(self.at, sort_order=order, sort_target=target)), want, target)
        self.assertEqual(keys(c.get_range(self.at + "a", self.at + "c")), "ab")
        self.assertEqual([v for v, _ in c.get_prefix(self.at, keys_only=True)], [b""] * 3)
        self.assertGreaterEqual(len(list(c.get_all())), 3)
        answer = c.get_prefix_response(self.at)
        self.assertEqual((answer.count, answer.more), (3, False))

    def test_transactions(self):
        c, a, b = self.client, self.at + "a", self.at + "b"
        c.put(a, "1")
        t = c.transactions
        ok, answers = c.transaction(
            compare=[t.value(a) == "1", t.version(a) > 0, t.create(b) == 0, t.mod(a) != 1],
            success=[t.put(a, "2"), t.get(a), t.txn(compare=[t.version(b) == 0], success=[t.put(b, "x")], failure=[])],
            failure=[t.delete(a)])
        self.assertTrue(ok)
        self.assertEqual(answers[1][0][0], b"2")
        self.assertTrue(answers[2].response_txn.succeeded)
        ok, answers = c.transaction(compare=[t.value(a) < "1"], success=[], failure=[t.delete(b), t.get(b)])
        self.assertFalse(ok)
        self.assertEqual((answers[0].response_delete_range.deleted, answers[1]), (1, []))
        with self.assertRaises(grpc.RpcError) as refused:
            c.transaction(compare=[], success=[t.put(a, "1"), t.put(a, "2")], failure=[])
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(refused.exception.details(), "etcdserver: duplicate key given in txn request")

    def test_leases(self):
        c = self.client
        lease = c.lease(60)
        c.put(self.at + "a", "1", lease=lease)
        self.assertEqual(c.get(self.at + "a")[1].lease_id, lease.id)
        self.assertEqual((lease.granted_ttl, lease.keys), (60, [(self.at + "a").encode()]))
        self.assertLessEqual(lease.remaining_ttl, 60)
        self.assertEqual([r.TTL for r in lease.refresh()], [60])
        lease.revoke()
        self.assertEqual((c.get(self.at + "a"), lease.remaining_ttl), ((None, None), -1))
        self.assertEqual([r.TTL for r in lease.refresh()], [0])
        chosen = c.lease(60, lease_id=4711)
        self.assertEqual(chosen.id, 4711)
        for wrong, code, words in (
            (lambda: c.lease(60, lease_id=4711), grpc.StatusCode.FAILED_PRECONDITION, exceptions.PreconditionFailedError),
            (lambda: c.put(self.at + "a", "1", lease=lease), grpc.StatusCode.NOT_FOUND, grpc.RpcError),
        ):
            with self.assertRaises(words, msg=code) as refused:
                wrong()
            if words is grpc.RpcError:
                self.assertEqual(refused.exception.code(), code)
        chosen.revoke()
        event = queue.Queue()
        c.put(self.at + "b", "1", lease=c.lease(1))
        rev = c.get(self.at + "b")[1].mod_revision
        c.add_watch_callback(self.at + "b", event.put, start_revision=rev + 1)
        self.assertIsInstance(event.get(timeout=PATIENCE).events[0], etcd3.events.DeleteEvent)

    def test_locks(self):
        lock, other = self.client.lock(self.at, ttl=60), self.client.lock(self.at, ttl=60)
        self.assertTrue(lock.acquire())
        self.assertTrue(lock.is_acquired())
        self.assertFalse(other.acquire(timeout=0))
        lock.refresh()
        self.assertTrue(lock.release())
        with other:
            self.assertTrue(other.is_acquired())
        self.assertFalse(other.is_acquired())

    def test_watches(self):
        c, a = self.client, self.at + "a"
        rev = c.put(a, "0").header.revision
        events, cancel = c.watch_prefix(self.at, start_revision=rev, prev_kv=True)
        c.put(a, "1")
        c.delete(a)
        c.put(self.at + "b", "2")
        seen = [next(events) for _ in range(4)]
        self.assertEqual([type(e).__name__ for e in seen], ["PutEvent", "PutEvent", "DeleteEvent", "PutEvent"])
        self.assertEqual([e.value for e in seen], [b"0", b"1", b"", b"2"])
        self.assertEqual([e.prev_value for e in seen], [b"", b"0", b"1", b""])
        cancel()
        self.assertEqual(list(events), [])
        once = c.watch_once(a, timeout=PATIENCE, start_revision=rev)
        self.assertEqual(once.value, b"0")
        c.compact(c.put(a, "3").header.revision)
        with self.assertRaises(exceptions.RevisionCompactedError) as compacted:
            list(c.watch(a, start_revision=rev)[0])
        self.assertGreater(compacted.exception.compacted_revision, rev)

    def test_maintenance(self):
        c = self.client
        members = list(c.members)
        self.assertEqual(len(members), len(SERVERS))
        self.assertEqual(sorted(u for m in members for u in m.client_urls), sorted(os.environ["ENDPOINTS"].split(",")))
        status = c.status()
        self.assertRegex(status.version, r"^3\.7\.")
        self.assertIn(status.leader.id, [m.id for m in members])
        self.assertIsInstance(c.hash(), int)
        self.assertEqual(list(c.list_alarms()), [])
        c.defragment()
        snapshot = io.BytesIO()
        c.snapshot(snapshot)
        # A bbolt file has its magic number in the first page, and its own hash behind it.
        self.assertEqual(snapshot.getvalue()[16:20], bytes.fromhex("edda0ced"))
        self.assertEqual(len(snapshot.getvalue()) % 512, 32)

    def test_alarms(self):
        c = self.client
        member = next(m for m in c.members).id
        self.assertEqual([(a.alarm_type, a.member_id) for a in c.create_alarm(member)], [(1, member)])
        try:
            with self.assertRaises(grpc.RpcError) as full:
                c.put(self.at, "1")
            self.assertEqual(full.exception.details(), "etcdserver: mvcc: database space exceeded")
            self.assertEqual([a.member_id for a in c.list_alarms()], [member])
        finally:
            c.disarm_alarm(member)
        self.assertEqual(list(c.list_alarms()), [])
        c.put(self.at, "1")

    def test_restart(self):
        c = self.client
        c.put(self.at + "a", "1")
        restart(0)
        for _ in range(10_000):  # each fails at once until the connection is back
            try:
                self.assertEqual(c.get(self.at + "a")[0], b"1")
                break
            except exceptions.ConnectionFailedError:
                continue
        else:
            self.fail("the connection does not come back")


class Users(Case):
    """The client has no calls for users; the messages it was made from have."""

    def test_password(self):
        plain = etcd3.client(host=self.host, port=self.port, timeout=PATIENCE)
        self.addCleanup(plain.close)
        rpc = etcd3.etcdrpc
        auth = rpc.AuthStub(plain.channel)
        auth.UserAdd(rpc.AuthUserAddRequest(name="root", password="secret"))
        auth.RoleAdd(rpc.AuthRoleAddRequest(name="root"))
        auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="root", role="root"))
        auth.AuthEnable(rpc.AuthEnableRequest())
        token = auth.Authenticate(rpc.AuthenticateRequest(name="root", password="secret")).token
        try:
            with etcd3.client(host=self.host, port=self.port, timeout=PATIENCE) as c:
                # Debian's gRPC sends what the client takes a password for over TLS only.
                c.metadata = (("token", token),)
                c.put(self.at, "1")
                self.assertEqual(c.get(self.at)[0], b"1")
            for call, words in (
                (lambda: plain.get(self.at), "etcdserver: user name is empty"),
                (lambda: etcd3.client(host=self.host, port=self.port, user="root", password="x", timeout=PATIENCE),
                 "etcdserver: authentication failed, invalid user ID or password"),
            ):
                with self.assertRaises(grpc.RpcError) as refused:
                    call()
                self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
                self.assertEqual(refused.exception.details(), words)
        finally:
            auth.AuthDisable(rpc.AuthDisableRequest(), metadata=(("token", token),))
            auth.UserDelete(rpc.AuthUserDeleteRequest(name="root"))
            auth.RoleDelete(rpc.AuthRoleDeleteRequest(role="root"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
