package sim

import (
	"fmt"
	"time"

	"github.com/concord-kv/concord/kv"
)

// people are all who use the cluster.
type people struct {
	clients  []*client
	keepers  []*keeper
	watchers []*watcher
	commands map[string]*command // by their bytes
	checked  int                 // operations that porcupine decided
	// What has to do with access tokens.
	credentials []*credential
	onlookers   []*onlooker
}

func (w *world) startPeople() {
	l := &w.opt.load
	for i := range l.clients {
		c := &client{w: w, id: i, guest: l.rights > 0 && i%2 == 0}
		w.people.clients = append(w.people.clients, c)
		c.run()
	}
	for i := range l.leases {
		k := &keeper{client: client{w: w, id: 100 + i}}
		w.people.keepers = append(w.people.keepers, k)
		k.next = k.live
		k.run()
	}
	for i := range l.watchers {
		w.startWatcher(i)
	}
	if l.rights > 0 {
		w.loop.after(w.load.exp(l.rights), (&warden{client: client{w: w, id: 300}}).act)
	}
	if l.compact > 0 {
		w.loop.after(w.load.exp(l.compact), (&compactor{client{w: w, id: 200}}).act)
	}
}

// key draws a key; those that porcupine follows have even numbers.
func (w *world) key() string { return fmt.Sprintf("k%03d", w.load.IntN(w.opt.load.keys)) }

// wildKey draws one that may also vanish by itself.
func (w *world) wildKey() string { return fmt.Sprintf("k%03d", w.load.IntN(w.opt.load.keys)|1) }

// wild reports whether a key may vanish by itself.
func wild(key string) bool { return (key[len(key)-1]-'0')&1 == 1 }

// lease picks one that is held by somebody now.
func (w *world) lease() (kv.LeaseID, bool) {
	var ids []kv.LeaseID
	for _, k := range w.people.keepers {
		if k.lease != 0 {
			ids = append(ids, k.lease)
		}
	}
	if len(ids) == 0 {
		return 0, false
	}
	return pick(w.load, ids...), true
}

// keeper holds a lease for a while, renews it, and lets it go in one way or
// another.
type keeper struct {
	client
	lease  kv.LeaseID
	ttl    time.Duration
	serial int
	next   func()
}

func (k *keeper) run() { k.again(k.w.load.exp(time.Second)) }

func (k *keeper) again(d time.Duration) {
	k.w.loop.after(d, func() {
		if !k.w.closing {
			k.next()
		}
	})
}

// live is a step in the life of a lease.
func (k *keeper) live() {
	if k.at == nil || k.w.load.is(0.2) {
		k.move()
	}
	switch {
	case k.lease == 0:
		k.serial++
		k.ttl = k.w.load.between(50*time.Millisecond, 5*time.Second).Round(time.Millisecond)
		id := kv.LeaseID(k.id*1000 + k.serial)
		k.ask(&command{grant: &kv.Grant{ID: id, TTL: k.ttl}}, func(ok bool) {
			if ok {
				k.lease = id
			}
			k.again(k.ttl / 3)
		})
	case k.w.load.is(0.1):
		k.ask(&command{revoke: k.lease}, func(bool) {
			k.lease = 0
			k.again(k.w.load.exp(time.Second))
		})
	case k.w.load.is(0.1):
		k.lease = 0 // forgotten: it has to expire
		k.again(k.ttl)
	default:
		k.ask(&command{alive: k.lease}, func(ok bool) {
			if !ok {
				k.lease = 0
			}
			k.again(k.ttl / 3)
		})
	}
}

// ask proposes a command once; ok says that it was done.
func (c *client) ask(cmd *command, then func(ok bool)) {
	w := c.w
	cmd = w.register(cmd)
	r := &request{}
	r.attempt = func(n *node, done func(any, error)) { n.propose(cmd, done) }
	r.finish = func(res any, err error, unknown bool) {
		if w.trace.on() {
			w.tell("client %d %s -> %s", c.id, describe(cmd), describeAnswer(res, err, unknown))
		}
		if !unknown {
			w.checkAnswer(cmd, r.floor, res, err)
		}
		ok := !unknown && err == nil
		if l := w.model.leases[cmd.alive]; ok && l != nil {
			l.since = max(l.since, r.start)
		}
		then(ok)
	}
	r.then = func() {}
	c.do(r)
}

// compactor compacts history now and then.
type compactor struct{ client }

func (c *compactor) act() {
	w := c.w
	if w.closing {
		return
	}
	c.move()
	again := func(bool) { w.loop.after(w.load.exp(w.opt.load.compact), c.act) }
	behind := w.model.rev - w.model.compacted
	rev := w.model.compacted + kv.Revision(w.load.Int64N(int64(behind)+1))
	if rev < 1 {
		again(false)
		return
	}
	c.ask(&command{compact: rev}, again)
}

// duties is what the leader does beside leading: it looks for what is over.
func (p *process) duties() {
	w := p.n.w
	p.after(w.opt.election/5, p.duties)
	term, now, ok := p.leadership()
	if !ok || w.closing {
		return
	}
	leases, keys, _ := p.machine.Due(now, 1+w.rnd.IntN(8))
	if len(leases)+len(keys) == 0 && now < p.machine.Access().NextExpiry() {
		return
	}
	if w.bug().shell.plainRevoke {
		for _, l := range leases {
			p.n.propose(w.register(&command{revoke: l.ID, due: true}), func(any, error) {})
		}
		return
	}
	cmd := w.register(&command{expire: &expiry{term: term, leases: leases, keys: keys}})
	p.proposeLocal(uint64(term), cmd)
}
