// The npm client etcd3 against the servers of ENDPOINTS. Nothing here waits for a
// time: what takes one is awaited as an event.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, describe, it } from 'node:test';
import {
  Etcd3, EtcdAuthenticationFailedError, EtcdLeaseInvalidError, EtcdLockFailedError, EtcdPermissionDeniedError,
  EtcdRoleExistsError, EtcdRoleNotFoundError, EtcdRoleNotGrantedError, EtcdUserExistsError, EtcdUserNotFoundError,
  Role, STMConflictError,
} from 'etcd3';

const hosts = process.env.ENDPOINTS.split(',');
const patient = { timeout: 120_000 };
const client = new Etcd3({ hosts });
after(() => client.close());

// events collects what a watcher tells of; next waits for the one after.
class Events {
  #seen = [];
  #waiting = [];

  constructor(watcher) {
    this.watcher = watcher;
    watcher.on('put', (kv, previous) => this.#add(['put', kv, previous]));
    watcher.on('delete', (kv, previous) => this.#add(['delete', kv, previous]));
    watcher.on('error', error => this.#add(['error', error]));
  }

  #add([type, kv, previous]) {
    const event = type === 'error' ? kv : { type, key: kv.key.toString(), value: kv.value.toString(), revision: kv.mod_revision, previous: previous?.value.toString() };
    (this.#waiting.shift() ?? (e => this.#seen.push(e)))(event);
  }

  async next() {
    return this.#seen.length ? this.#seen.shift() : new Promise(resolve => this.#waiting.push(resolve));
  }
}

describe('keys', patient, () => {
  const ns = client.namespace('keys/');
  it('are put, read in every form and deleted', async () => {
    assert.equal(await ns.get('none'), null);
    assert.equal(await ns.get('none').exists(), false);
    const put = await ns.put('a').value('1').exec();
    assert.equal(await ns.get('a').string(), '1');
    assert.equal(await ns.get('a').number(), 1);
    assert.deepEqual(await ns.get('a').buffer(), Buffer.from('1'));
    await ns.put('j').value('{"x":[1,2]}');
    assert.deepEqual(await ns.get('j').json(), { x: [1, 2] });
    const bytes = Buffer.from([0, 255, 128, 10]);
    await ns.put(bytes).value(bytes);
    assert.deepEqual(await ns.get(bytes).buffer(), bytes);
    const kv = (await ns.get('a').exec()).kvs[0];
    assert.deepEqual([kv.mod_revision, kv.create_revision, kv.version, kv.lease], [put.header.revision, put.header.revision, '1', '0']);
    assert.equal((await ns.put('a').value('2').getPrevious()).value.toString(), '1');
    await ns.put('a').touch();
    assert.equal((await ns.get('a').exec()).kvs[0].version, '3');
    assert.equal(await ns.get('a').revision(put.header.revision), '1');
    assert.deepEqual((await ns.delete().key('a').getPrevious()).map(k => k.value.toString()), ['2']);
    assert.equal((await ns.delete().key('a')).deleted, '0');
    assert.equal((await ns.delete().all()).deleted, '2');
  });

  it('are read by prefix and range, sorted, limited, counted', async () => {
    for (const [key, value] of [['p/c', '1'], ['p/a', '3'], ['p/b', '2'], ['q/a', '4']]) {
      await ns.put(key).value(value);
    }
    assert.deepEqual(await ns.getAll().prefix('p/'), { 'p/a': '3', 'p/b': '2', 'p/c': '1' });
    assert.deepEqual(await ns.getAll().prefix('p/').numbers(), { 'p/a': 3, 'p/b': 2, 'p/c': 1 });
    assert.deepEqual(await ns.getAll().keys(), ['p/a', 'p/b', 'p/c', 'q/a']);
    assert.equal(await ns.getAll().prefix('p/').count(), 3);
    assert.deepEqual(await ns.getAll().inRange({ start: 'p/b', end: 'q/a' }).keys(), ['p/b', 'p/c']);
    for (const [target, order, want] of [
      ['Key', 'Descend', 'cba'], ['Value', 'Ascend', 'cba'], ['Create', 'Ascend', 'cab'], ['Mod', 'Descend', 'bac'],
    ]) {
      const keys = await ns.getAll().prefix('p/').sort(target, order).keys();
      assert.equal(keys.map(k => k.slice(2)).join(''), want, `${target} ${order}`);
    }
    const part = await ns.getAll().prefix('p/').limit(2).exec();
    assert.deepEqual([part.more, part.count, part.kvs.length], [true, '3', 2]);
    const created = part.kvs[0].create_revision; // of p/a
    assert.deepEqual(await ns.getAll().prefix('p/').minCreateRevision(created).keys(), ['p/a', 'p/b']);
    assert.deepEqual(await ns.getAll().prefix('p/').maxModRevision(created).keys(), ['p/a', 'p/c']);
    assert.equal((await ns.delete().prefix('p/')).deleted, '3');
    assert.deepEqual(await ns.getAll().serializable(false), { 'q/a': '4' });
  });

  it('of namespaces in namespaces are apart', async () => {
    await ns.namespace('in/').put('k').value('v');
    assert.deepEqual(await client.getAll().prefix('keys/in/'), { 'keys/in/k': 'v' });
    assert.equal(await ns.get('k'), null);
    assert.deepEqual(await ns.namespace('in/').getAll(), { k: 'v' });
  });

  it('of old revisions are compacted, and the future is refused', async () => {
    const { header } = await ns.put('old').value('1').exec();
    await ns.put('old').value('2');
    const { header: last } = await ns.put('old').value('3').exec();
    await client.kv.compact({ revision: last.revision });
    await assert.rejects(ns.get('old').revision(header.revision), /mvcc: required revision has been compacted/);
    await assert.rejects(ns.get('old').revision(String(BigInt(last.revision) + 1000n)), /mvcc: required revision is a future revision/);
    await assert.rejects(client.kv.put({ key: '' }), /etcdserver: key is not provided/);
  });
});

describe('transactions', patient, () => {
  const ns = client.namespace('txn/');
  it('compare and choose', async () => {
    await ns.put('a').value('1');
    const mod = (await ns.get('a').exec()).kvs[0].mod_revision;
    const yes = await ns.if('a', 'Value', '==', '1').and('a', 'Version', '>', 0).and('a', 'Mod', '==', mod).and('b', 'Create', '==', 0)
      .then(ns.put('a').value('2'), ns.get('a'), ns.put('b').value('x')).else(ns.get('b')).commit();
    assert.equal(yes.succeeded, true);
    assert.equal(yes.responses[1].response_range.kvs[0].value.toString(), '2');
    const no = await ns.if('a', 'Value', '!=', '2').then(ns.delete().all()).else(ns.getAll(), ns.delete().key('b')).commit();
    assert.equal(no.succeeded, false);
    assert.equal(no.responses[0].response_range.kvs.length, 2);
    assert.equal(no.responses[1].response_delete_range.deleted, '1');
    await assert.rejects(ns.if('a', 'Version', '>', 0).then(ns.put('a').value('1'), ns.put('a').value('2')).commit(), /etcdserver: duplicate key given in txn request/);
    assert.deepEqual(await ns.getAll(), { a: '2' });
  });

  it('in software lose no update', async () => {
    await ns.put('n').value(0);
    const add = () => ns.stm({ retries: 100 }).transact(async tx => tx.put('n').value(await tx.get('n').number() + 1));
    await Promise.all(Array.from({ length: 10 }, add));
    assert.equal(await ns.get('n').number(), 10);
    await assert.rejects(ns.stm({ retries: 0 }).transact(async tx => {
      const n = await tx.get('n').number();
      await ns.put('n').value(n + 1);
      await tx.put('n').value(n + 1);
    }), STMConflictError);
  });
});

describe('leases', patient, () => {
  const ns = client.namespace('leases/');
  it('carry keys and take them along', async () => {
    const lease = ns.lease(60);
    const id = await lease.grant();
    await lease.put('a').value('1');
    await ns.put('b').value('2').lease(id);
    const left = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
    assert.deepEqual(left.keys.map(String).sort(), ['leases/a', 'leases/b']);
    assert.equal(left.grantedTTL, '60');
    assert.ok((await client.leaseClient.leaseLeases()).leases.some(l => l.ID === id));
    await ns.put('b').value('3').ignoreLease();
    assert.equal((await ns.get('b').exec()).kvs[0].lease, id);
    await lease.revoke();
    assert.deepEqual(await ns.getAll(), {});
    await assert.rejects(client.leaseClient.leaseRevoke({ ID: id }), EtcdLeaseInvalidError);
    await assert.rejects(ns.put('a').value('1').lease(id), EtcdLeaseInvalidError);
    assert.equal((await client.leaseClient.leaseTimeToLive({ ID: id })).TTL, '-1');
  });

  it('are kept alive, by stream and one time', async () => {
    const lease = ns.lease(3);
    lease.on('lost', error => assert.fail(error));
    await lease.put('alive').value('1');
    for (let i = 0; i < 4; i++) { // longer than the lease by itself
      const [answer] = await once(lease, 'keepaliveSucceeded');
      assert.equal(answer.TTL, '3');
    }
    assert.equal(await ns.get('alive'), '1');
    assert.equal((await lease.keepaliveOnce()).TTL, '3');
    await lease.revoke();
  });

  it('end when nobody keeps them', async () => {
    const events = new Events(await ns.watch().key('brief').create());
    const lease = ns.lease(1, { autoKeepAlive: false });
    await lease.put('brief').value('1');
    lease.release();
    assert.equal((await events.next()).type, 'put');
    assert.equal((await events.next()).type, 'delete');
    await events.watcher.cancel();
    const lost = ns.lease(60);
    const id = await lost.grant();
    const loss = once(lost, 'lost');
    await client.leaseClient.leaseRevoke({ ID: id });
    await assert.rejects(lost.keepaliveOnce(), EtcdLeaseInvalidError);
    assert.ok((await loss)[0] instanceof EtcdLeaseInvalidError);
  });
});

describe('locks', patient, () => {
  it('have one holder', async () => {
    const ns = client.namespace('locks/');
    const lock = await ns.lock('l').ttl(30).acquire();
    await assert.rejects(ns.lock('l').acquire(), EtcdLockFailedError);
    assert.equal((await ns.get('l').exec()).kvs[0].lease, await lock.leaseId());
    await lock.release();
    assert.equal(await ns.lock('l').do(() => 'mine'), 'mine');
    assert.equal(await ns.get('l'), null);
  });
});

describe('elections', patient, () => {
  it('pass from one to the next, and observers see it', async () => {
    const election = client.election('boss', 30);
    const observer = await election.observe();
    const changes = [];
    let wake = () => {};
    observer.on('change', leader => { changes.push(leader); wake(); });
    const seen = async leader => {
      while (changes.at(-1) !== leader) await new Promise(resolve => { wake = resolve; });
    };
    const first = election.campaign('first');
    await first.wait();
    await seen('first');
    assert.equal(await election.leader(), 'first');
    const second = election.campaign('second');
    const waiting = once(second, '_isWaiting');
    const elected = second.wait();
    await waiting;
    await first.proclaim('first again');
    await seen('first again');
    await first.resign();
    await elected;
    await seen('second');
    assert.equal(await election.leader(), 'second');
    assert.equal(await client.get(await second.getCampaignKey()), 'second');
    await second.resign();
    assert.equal(await election.leader(), undefined);
    await observer.cancel();
  });
});

describe('watchers', patient, () => {
  const ns = client.namespace('watch/');
  it('see keys, prefixes, old values, the past, and what they ask for', async () => {
    const { header } = await ns.put('a').value('0').exec();
    const past = new Events(await ns.watch().key('a').startRevision(header.revision).create());
    const all = new Events(await ns.watch().prefix('').withPreviousKV().create());
    const deletes = new Events(await ns.watch().prefix('').only('delete').create());
    const puts = new Events(await ns.watch().inRange({ start: 'a', end: 'c' }).only('put').create());
    await ns.put('a').value('1');
    await ns.delete().key('a');
    await ns.put('b').value('2');
    await ns.put('c').value('3');
    const brief = async e => { const { type, key, value } = await e.next(); return `${type} ${key} ${value}`; };
    for (const want of ['put a 0', 'put a 1', 'delete a ']) assert.equal(await brief(past), want);
    const first = await all.next();
    assert.deepEqual([first.type, first.previous], ['put', '0']);
    const second = await all.next();
    assert.deepEqual([second.type, second.previous], ['delete', '1']);
    for (const want of ['put b 2', 'put c 3']) assert.equal(await brief(all), want);
    assert.equal(await brief(deletes), 'delete a ');
    for (const want of ['put a 1', 'put b 2']) assert.equal(await brief(puts), want);
    for (const e of [past, all, deletes, puts]) await e.watcher.cancel();
  });

  it('of a compacted revision are ended with the reason', async () => {
    const { header } = await ns.put('old').value('1').exec();
    const last = await ns.put('old').value('2').exec();
    await client.kv.compact({ revision: last.header.revision });
    const [error] = await once(ns.watch().key('old').startRevision(header.revision).watcher(), 'error');
    assert.match(error.message, /Watcher canceled/);
  });

  it('go on after the server was killed, with nothing lost or doubled', async () => {
    // One host each, so that the watcher's member is the one that is killed.
    for (let member = 0; member < hosts.length; member++) {
      const own = new Etcd3({ hosts: [hosts[member]] });
      const watcher = await own.watch().prefix('reconnect/').create();
      const events = new Events(watcher);
      const writer = own.namespace('reconnect/');
      let n = 0;
      const put = async () => {
        for (const to = n + 20; n < to; n++) await writer.put(`k${n % 7}`).value(n);
      };
      await put();
      for (let i = 0; i < n; i++) assert.equal((await events.next()).value, String(i));
      const disconnected = once(watcher, 'disconnected');
      const connected = once(watcher, 'connected');
      const answer = await fetch(`${process.env.CONTROL}/restart?member=${member}`, { method: 'POST' });
      assert.equal(answer.status, 200, await answer.text());
      await disconnected;
      await connected;
      // The connection for requests finds back by itself, too, within a while.
      for (;;) {
        const error = await writer.put('back').value('again').then(() => null, e => e);
        if (!error) break;
      }
      await put();
      assert.equal((await events.next()).value, 'again');
      for (let i = 20; i < n; i++) assert.equal((await events.next()).value, String(i));
      await watcher.cancel();
      own.close();
    }
  });
});

describe('the cluster', patient, () => {
  it('lists its members and says how it is', async () => {
    const { members } = await client.cluster.memberList({});
    assert.equal(members.length, hosts.length);
    assert.deepEqual(members.flatMap(m => m.clientURLs).sort(), [...hosts].sort());
    const status = await client.maintenance.status();
    assert.match(status.version, /^3\.7\./);
    assert.ok(members.some(m => m.ID === status.leader));
    assert.deepEqual((await client.maintenance.alarm({ action: 'Get' })).alarms, []);
  });
});

describe('users and roles', patient, () => {
  it('count once they are switched on', async () => {
    const rejects = (promise, error) => assert.rejects(promise, e => e instanceof error || assert.fail(`${e.constructor.name}: ${e.message}`));
    const root = await client.user('root').create('secret');
    await root.addRole(await client.role('root').create());
    const role = await client.role('reader').create();
    await rejects(client.role('reader').create(), EtcdRoleExistsError);
    const range = client.range({ prefix: 'auth/open/' });
    await role.grant([{ permission: 'Read', range }, { permission: 'Readwrite', key: 'auth/own' }]);
    const permissions = await role.permissions();
    assert.deepEqual(permissions.map(p => p.permission).sort(), ['Read', 'Readwrite']);
    assert.ok(permissions.some(p => p.range.start.equals(range.start) && p.range.end.equals(range.end)));
    const user = await client.user('ann').create('pass');
    await rejects(client.user('ann').create('pass'), EtcdUserExistsError);
    await rejects(user.removeRole('reader'), EtcdRoleNotGrantedError);
    await rejects(user.addRole('nothing'), EtcdRoleNotFoundError);
    await rejects(client.user('nobody').roles(), EtcdUserNotFoundError);
    await user.addRole(role);
    assert.deepEqual((await user.roles()).map(r => r.name), ['reader']);
    assert.deepEqual((await client.getUsers()).map(u => u.name).sort(), ['ann', 'root']);
    assert.deepEqual((await client.getRoles()).map(r => r.name).sort(), ['reader', 'root']);
    await client.auth.authEnable();
    const as = (username, password) => new Etcd3({ hosts, auth: { username, password } });
    const admin = as('root', 'secret'), ann = as('ann', 'pass'), wrong = as('ann', 'other');
    try {
      await admin.put('auth/open/a').value('1');
      assert.equal(await ann.get('auth/open/a'), '1');
      await rejects(ann.put('auth/open/a').value('2'), EtcdPermissionDeniedError);
      await ann.put('auth/own').value('2');
      await rejects(ann.get('auth/other'), EtcdPermissionDeniedError);
      await rejects(ann.getUsers(), EtcdPermissionDeniedError);
      await rejects(wrong.get('auth/own'), EtcdAuthenticationFailedError);
      await assert.rejects(client.get('auth/own'), /etcdserver: user name is empty/);
      const events = new Events(await ann.watch().key('auth/own').create());
      await admin.put('auth/own').value('3');
      assert.equal((await events.next()).value, '3');
      await events.watcher.cancel();
      const refused = new Events(ann.watch().key('auth/other').watcher());
      assert.match((await refused.next()).message, /permission denied/);
      await new Role(admin.auth, 'reader').revoke({ permission: 'Readwrite', key: 'auth/own' });
      await rejects(ann.put('auth/own').value('4'), EtcdPermissionDeniedError);
      await admin.user('ann').setPassword('other');
      assert.equal(await wrong.get('auth/open/a'), '1');
    } finally {
      await admin.auth.authDisable();
      for (const c of [admin, ann, wrong]) c.close();
    }
    for (const name of ['ann', 'root']) await client.user(name).delete();
    for (const name of ['reader', 'root']) await client.role(name).delete();
    assert.deepEqual([await client.getUsers(), await client.getRoles()], [[], []]);
  });
});
