package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// driver applies commands one an entry.
type driver struct {
	testing.TB
	*Machine
	index uint64
	time  int64
}

func start(t testing.TB) *driver {
	d := &driver{TB: t, Machine: New(Options{}), index: 1, time: 1}
	d.Bootstrap(1, []kv.Member{{ID: 1, Name: "one", PeerAddrs: []string{"h1:1"}}})
	t.Cleanup(func() { d.Machine.Close() })
	return d
}

func (d *driver) apply(command []byte) any {
	d.Helper()
	d.index++
	results := make([]any, 1)
	d.Apply(d.index, 1, d.time, [][]byte{command}, results)
	return results[0]
}

func (d *driver) change(changes ...MemberChange) any {
	d.index++
	return d.ApplyMembers(d.index, 1, d.time, EncodeMembers(nil, changes...))
}

func (d *driver) put(key, value string) *kv.TxnResult {
	d.Helper()
	r, ok := d.apply(EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte(key), Value: []byte(value)}}})).(*kv.TxnResult)
	if !ok {
		d.Fatalf("put failed")
	}
	return r
}

func (d *driver) restart() { d.Machine = restored(d.TB, d.Machine) }

func wantError(t testing.TB, result any, want error) {
	t.Helper()
	err, ok := result.(error)
	if !ok || !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", result, want)
	}
}

func TestUpload(t *testing.T) {
	d := start(t)
	big := make([]byte, 5*1000+17)
	for i := range big {
		big[i] = byte(i * 7 / 3)
	}
	txn := kv.Txn{
		Success: []kv.Op{
			{Kind: kv.OpPut, Key: []byte("big"), Value: big},
			{Kind: kv.OpPut, Key: []byte("small"), Value: []byte("s")},
			{Kind: kv.OpTxn, Txn: &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("nested"), Value: big[:2000]}}}},
		},
		Failure: []kv.Op{{Kind: kv.OpPut, Key: []byte("failure"), Value: big[:1500]}},
		ID:      kv.RequestID{Client: [16]byte{1}, Seq: 1},
	}
	var value []byte
	for _, part := range Staged(&txn, 1000) {
		value = append(value, part...)
	}
	if len(value) != len(big)+2000+1500 {
		t.Fatalf("%d bytes staged", len(value))
	}
	id := UploadID{9}
	command := EncodeUploadTxn(nil, &txn, id, 1000)
	if len(command) > 200 {
		t.Fatalf("the command has %d bytes", len(command))
	}
	wantError(t, d.apply(command), ErrUploadLost)
	const piece = 700
	var pieces []int
	for at := 0; at < len(value); at += 2 * piece {
		pieces = append(pieces, at)
	}
	for at := piece; at < len(value); at += 2 * piece {
		pieces = append(pieces, at, at)
	}
	send := func(at int) {
		part := value[at:min(at+piece, len(value))]
		if _, ok := d.apply(EncodePiece(nil, id, int64(at), int64(len(value)), part)).(*kv.Header); !ok {
			t.Fatalf("piece at %d refused", at)
		}
	}
	for i, at := range pieces {
		send(at)
		if i%5 == 0 {
			d.restart()
		}
	}
	want := d.apply(command)
	if r, ok := want.(*kv.TxnResult); !ok || r.Revision != 2 {
		t.Fatalf("got %v", want)
	}
	for key, n := range map[string]int{"big": len(big), "nested": 2000} {
		if k, ok := d.Get([]byte(key)); !ok || !bytes.Equal(k.Value, big[:n]) {
			t.Fatalf("%s was not stored as it was sent", key)
		}
	}
	if diff := sameResult(want, d.apply(command)); diff != "" {
		t.Fatalf("the retry got another result:\n%s", diff)
	}
	if len(d.uploads.all) != 0 || d.uploads.reserved != 0 {
		t.Fatal("the upload is still there")
	}
	// The expiry.
	send(0)
	d.time += uploadAge - 1
	send(piece)
	d.time += uploadAge - 1
	d.put("x", "1")
	if len(d.uploads.all) != 1 {
		t.Fatal("the upload is gone too early")
	}
	d.time++
	d.put("x", "1")
	if len(d.uploads.all) != 0 {
		t.Fatal("the upload is still there")
	}
}

func TestUploadBounds(t *testing.T) {
	d := start(t)
	piece := func(id byte, offset, total int64, n int) any {
		return d.apply(EncodePiece(nil, UploadID{id}, offset, total, make([]byte, n)))
	}
	for _, bad := range [][3]int64{{0, 10, 0}, {0, 10, 11}, {5, 10, 6}, {11, 10, 1}, {0, MaxUploadBytes + 1, 1}, {-1, 10, 1}, {0, -1, 1}} {
		if err, ok := piece(1, bad[0], bad[1], int(bad[2])).(error); !ok || kv.CodeOf(err) != kv.InvalidArgument {
			t.Fatalf("%v: %v", bad, err)
		}
	}
	piece(1, 100, 1000, 100)
	for _, bad := range [][3]int64{{150, 1000, 100}, {50, 1000, 100}, {100, 1000, 101}, {100, 999, 100}} {
		if err, ok := piece(1, bad[0], bad[1], int(bad[2])).(error); !ok || kv.CodeOf(err) != kv.InvalidArgument {
			t.Fatalf("%v: %v", bad, err)
		}
	}
	wantError(t, piece(2, 0, MaxUploadBytes-999, 1), kv.ErrTooManyUploads)
	for i := 1; i < MaxUploads; i++ {
		d.apply(EncodePiece(nil, UploadID{1, byte(i), byte(i >> 8)}, 0, 2, make([]byte, 1)))
	}
	wantError(t, piece(2, 0, 1, 1), kv.ErrTooManyUploads)
	if len(d.uploads.all) != MaxUploads || d.uploads.reserved != 1000+2*(MaxUploads-1) {
		t.Fatalf("%d uploads, %d bytes", len(d.uploads.all), d.uploads.reserved)
	}
	d.restart()
	if len(d.uploads.all) != MaxUploads || d.uploads.reserved != 1000+2*(MaxUploads-1) {
		t.Fatalf("restored %d uploads, %d bytes", len(d.uploads.all), d.uploads.reserved)
	}
}

// request is a transaction with an id, whose result has about n bytes.
func request(client, seq int, n int) []byte {
	id := kv.RequestID{Seq: uint64(seq)}
	copy(id.Client[:], fmt.Sprint("client", client))
	return EncodeTxn(nil, &kv.Txn{ID: id, Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("k"), Value: make([]byte, n), PrevKV: true}}})
}

func TestRememberedResultsAreBounded(t *testing.T) {
	d := start(t)
	for seq := 2; seq <= 66; seq++ {
		d.apply(request(1, seq, 1))
	}
	before := d.View().Header() // closed by the machine's Close
	wantError(t, d.apply(request(1, 1, 1)), kv.ErrRequestTooOld)
	wantError(t, d.apply(request(1, 2, 1)), kv.ErrRequestTooOld)
	if r, ok := d.apply(request(1, 3, 1)).(*kv.TxnResult); !ok || r.Revision != 3 {
		t.Fatalf("got %v", r)
	}
	if d.header().Revision != before.Revision {
		t.Fatal("a retry ran")
	}
	// A large result is not kept, but the request does not run again.
	d.apply(request(2, 1, resultBytes))
	d.apply(request(2, 2, 1))
	d.restart()
	err, ok := d.apply(request(2, 2, 1)).(error)
	if !ok || !errors.Is(err, kv.ErrRequestTooOld) || !errors.Is(err, kv.ErrUnavailable) || err.Error() == kv.ErrRequestTooOld.Error() {
		t.Fatalf("got %v", err)
	}
	// The bytes of all.
	for seq := 1; d.requests.oldest.Len() < 60+rememberedBytes/(60<<10) && seq < 4000; seq++ {
		d.apply(request(3+seq/64, 1+seq%64, 60<<10))
	}
	if d.requests.bytes > rememberedBytes || d.requests.bytes < rememberedBytes/2 {
		t.Fatalf("%d bytes are remembered", d.requests.bytes)
	}
	wantError(t, d.apply(request(3, 5, 1)), kv.ErrRequestTooOld)
	d.checkRequests()
	d.restart()
	d.checkRequests()
	// Age, in bounded steps: what is not yet forgotten is refused all the same.
	d.time += rememberedFor
	wantError(t, d.apply(request(1, 66, 1)), kv.ErrRequestTooOld)
	for d.requests.results.Len() > 0 {
		d.put("x", "")
	}
	d.checkRequests()
}

// checkRequests asserts that the indexes belong to what is remembered.
func (d *driver) checkRequests() {
	d.Helper()
	again := d.requests.copy()
	again.oldest, again.idle = newRequests().oldest, newRequests().idle
	if !again.index() || again.bytes != d.requests.bytes || again.oldest.Len() != d.requests.oldest.Len() || again.idle.Len() != d.requests.idle.Len() {
		d.Fatalf("results: %d bytes, %d by age, %d idle; want %d, %d, %d", d.requests.bytes, d.requests.oldest.Len(), d.requests.idle.Len(), again.bytes, again.oldest.Len(), again.idle.Len())
	}
}

func TestRememberedClientsAreBounded(t *testing.T) {
	d := start(t)
	for c := range rememberedClients {
		d.apply(request(c, 1, 0))
	}
	wantError(t, d.apply(request(rememberedClients, 1, 0)), kv.ErrTooManyClients)
	if _, ok := d.apply(request(7, 2, 0)).(*kv.TxnResult); !ok {
		t.Fatal("a known client was refused")
	}
	d.time += rememberedFor
	for d.requests.results.Len() > 0 {
		d.put("x", "")
	}
	if d.requests.clients.Len() != rememberedClients {
		t.Fatal("clients are forgotten before room is needed")
	}
	wantError(t, d.apply(request(8, 1, 0)), kv.ErrRequestTooOld)
	for c := range 3 {
		if _, ok := d.apply(request(rememberedClients+c, 1, 0)).(*kv.TxnResult); !ok {
			t.Fatal("there was room for no more")
		}
	}
	if d.requests.clients.Len() != rememberedClients {
		t.Fatalf("%d clients", d.requests.clients.Len())
	}
	d.checkRequests()
}

func TestResultRoundTrip(t *testing.T) {
	c := newChance(1)
	d := start(t)
	for range 300 {
		txn := c.valid()
		r, ok := d.apply(EncodeTxn(nil, &txn)).(*kv.TxnResult)
		if !ok {
			continue
		}
		again, err := decodeResult(string(encodeResult(nil, r)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := sameResult(r, again); diff != "" {
			t.Fatal(diff)
		}
	}
	for _, bad := range []string{"", "\x07", "\x01", "\x01\x01\x01\x01\x01\x09"} {
		if _, err := decodeResult(bad); !errors.Is(err, kv.ErrCorrupt) {
			t.Fatalf("%q: %v", bad, err)
		}
	}
}

func TestMembers(t *testing.T) {
	d := start(t)
	add := func(id kv.MemberID, addr string) any {
		return d.change(MemberChange{AddMember, kv.Member{ID: id, PeerAddrs: []string{addr}, Learner: true}})
	}
	if err, failed := add(2, "h2:1").(error); failed {
		t.Fatal(err)
	}
	wantError(t, add(2, "h3:1"), kv.ErrMemberExists)
	wantError(t, add(3, "h2:1"), kv.ErrMemberExists)
	if _, failed := add(0, "h3:1").(error); !failed {
		t.Fatal("a member got id 0")
	}
	wantError(t, d.change(MemberChange{PromoteMember, kv.Member{ID: 1}}), kv.ErrNotLearner)
	wantError(t, d.change(MemberChange{RemoveMember, kv.Member{ID: 9}}), kv.ErrMemberNotFound)
	if err, failed := d.change(MemberChange{RemoveMember, kv.Member{ID: 1}}).(error); !failed || kv.CodeOf(err) != kv.FailedPrecondition {
		t.Fatalf("the last voter was removed: %v", err)
	}
	// All or nothing.
	if _, failed := d.change(MemberChange{PromoteMember, kv.Member{ID: 2}}, MemberChange{RemoveMember, kv.Member{ID: 9}}).(error); !failed || !d.Members()[1].Learner {
		t.Fatal("half of a change was made")
	}
	if err, failed := d.change(MemberChange{PromoteMember, kv.Member{ID: 2}}, MemberChange{RemoveMember, kv.Member{ID: 1}}).(error); failed {
		t.Fatal(err)
	}
	d.restart()
	if !d.Removed(1) || d.Removed(2) {
		t.Fatal("removed ids are forgotten")
	}
	wantError(t, add(1, "h1:1"), kv.ErrMemberExists)
	update := kv.Member{ID: 2, Name: "two", ClientAddrs: []string{"h2:2"}}
	if err, failed := d.apply(EncodeUpdateMember(nil, update)).(error); failed {
		t.Fatal(err)
	}
	wantError(t, d.apply(EncodeUpdateMember(nil, kv.Member{ID: 1})), kv.ErrMemberNotFound)
	if err, failed := d.apply(EncodeUpdateMember(nil, kv.Member{ID: 2, Name: string(make([]byte, maxMemberBytes))})).(error); !failed || kv.CodeOf(err) != kv.InvalidArgument {
		t.Fatalf("a name without bounds: %v", err)
	}
	want := []kv.Member{{ID: 2, Name: "two", PeerAddrs: []string{"h2:1"}, ClientAddrs: []string{"h2:2"}}}
	if got := d.Members(); !reflect.DeepEqual(got, want) {
		t.Fatalf("members %+v", got)
	}
	// Membership is changed by configuration changes only.
	smuggled := append([]byte{byte(kindMembers), 0}, EncodeMembers(nil, MemberChange{RemoveMember, kv.Member{ID: 2}})...)
	if err, failed := d.apply(smuggled).(error); !failed || kv.CodeOf(err) != kv.InvalidArgument {
		t.Fatalf("a command removed a member: %v", err)
	}
	d.Members()[0].PeerAddrs[0] = "changed"
	if d.Members()[0].PeerAddrs[0] != "h2:1" {
		t.Fatal("a caller changed the member table")
	}
	d.index++
	if h, ok := d.ApplyMembers(d.index, 1, d.time, nil).(*kv.Header); !ok || h.Revision != 1 {
		t.Fatalf("an empty change gave %v", h)
	}
}

func TestSettings(t *testing.T) {
	d := start(t)
	on, age, size, version := true, time.Hour, int64(77), "1.2.3"
	d.apply(EncodeSettings(nil, SettingsChange{LeaderReads: &on, Version: &version}))
	want := DefaultSettings()
	want.LeaderReads, want.Version = true, version
	if got := d.Settings(); got != want {
		t.Fatalf("settings %+v", got)
	}
	d.apply(EncodeSettings(nil, SettingsChange{Retention: &age, HistoryBytes: &size}))
	want.Retention, want.HistoryBytes = age, size
	d.restart()
	if got := d.View().Settings(); got != want {
		t.Fatalf("settings %+v", got)
	}
}

// History is let go by age and by size, also after a restart.
func TestRetention(t *testing.T) {
	d := start(t)
	for i := range 100 {
		d.time = int64(i+1) * 10_000
		d.put("k", string(make([]byte, 1<<20)))
	}
	for range 2 {
		if got := d.RevisionAt(kv.Time(d.time)); got != 101 {
			t.Fatalf("now is revision %d", got)
		}
		if got := d.RevisionAt(kv.Time(d.time - 600_000)); got != 41 {
			t.Fatalf("ten minutes ago was revision %d", got)
		}
		if got := d.RevisionAt(9000); got != 1 {
			t.Fatalf("before the first put was revision %d", got)
		}
		if got := d.RevisionAt(-1); got != 0 {
			t.Fatalf("before the cluster was revision %d", got)
		}
		if got := d.RevisionWithin(10 << 20); got < 92 || got > 93 {
			t.Fatalf("10 MiB ago was revision %d", got)
		}
		if got := d.RevisionWithin(1 << 30); got != 0 {
			t.Fatalf("1 GiB ago was revision %d", got)
		}
		d.restart()
	}
	d.apply(EncodeCompact(nil, 92))
	if got := d.RevisionAt(kv.Time(d.time - 600_000)); got != 0 || d.CompactRevision() != 92 {
		t.Fatalf("compacted history has revision %d", got)
	}
	if age, size := d.Retention(); age != 10*time.Minute || size != 256<<20 {
		t.Fatalf("retention %v, %d", age, size)
	}
}

func TestSamplesAreBounded(t *testing.T) {
	var h history
	for i := range 100_000 {
		h.sample(kv.Time(i)*sampleTime, kv.Revision(i+1), int64(i)*1000)
		if len(h.samples) > maxSamples {
			t.Fatalf("%d samples", len(h.samples))
		}
	}
	for _, age := range []int{0, 10, 60} {
		if got := h.at(kv.Time(99_999-age) * sampleTime); int(got) != 100_000-age {
			t.Errorf("%d samples ago is revision %d", age, got)
		}
	}
}

// recovered runs f and returns what it panics with.
func recovered(f func()) (r any) {
	defer func() { r = recover() }()
	f()
	return nil
}

func TestUnknownCommandStops(t *testing.T) {
	put := EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("a"), Value: []byte("1")}}})
	for name, command := range map[string][]byte{
		"empty":        {},
		"short":        {1},
		"kind":         {200, 0},
		"zero":         {0, 0},
		"principal":    append([]byte{byte(kindPut), 1}, put[2:]...),
		"flag":         append([]byte{byte(kindPut), hasRequest}, put[2:]...),
		"truncated":    put[:len(put)-1],
		"trailing":     append(put[:len(put):len(put)], 0),
		"staged put":   {byte(kindPut), 0, bitStaged, 1, 'k', 0, 1},
		"grant":        {byte(kindGrant), 0, 2},
		"settings bit": {byte(kindSettings), 0, 16},
		"member op":    append([]byte{byte(kindMembers), 0}, EncodeMembers(nil, MemberChange{Op: 9})...),
		"lease count":  {byte(kindKeepAlive), 0, 200},
	} {
		d := start(t)
		r := recovered(func() { d.apply(command) })
		e, ok := r.(*CommandError)
		if !ok || e.Index != 2 || len(command) > 0 && e.Kind != command[0] || e.Error() == "" {
			t.Errorf("%s: %v", name, r)
		}
	}
}

func TestOrderIsAsserted(t *testing.T) {
	for name, at := range map[string][3]int64{"index": {5, 2, 100}, "term": {6, 1, 100}, "time": {6, 2, 99}} {
		d := start(t)
		d.Apply(5, 2, 100, nil, nil)
		if recovered(func() { d.Apply(uint64(at[0]), uint64(at[1]), at[2], nil, nil) }) == nil {
			t.Errorf("%s went back unnoticed", name)
		}
	}
	d := start(t)
	d.Apply(5, 2, 100, nil, nil)
	d.Apply(6, 2, 0, nil, nil)
	if now := d.View().Header().Time; now != 100 {
		t.Fatalf("an entry without a stamp moved time to %d", now)
	}
}

// A snapshot holds the state at the moment it was taken, whatever is applied
// while it is written.
func TestSnapshotWhileApplying(t *testing.T) {
	d := start(t)
	c := newChance(5)
	log := c.log(600)
	var wg sync.WaitGroup
	type taken struct {
		index, hash uint64
		data        bytes.Buffer
		err         error
	}
	var all []*taken
	for i := range log {
		applyEntry(d.Machine, i+2, &log[i])
		if i%100 == 50 {
			s := &taken{}
			s.index, s.hash = d.Hash()
			all = append(all, s)
			write, release := d.Snapshot()
			wg.Go(func() {
				s.err = write(&s.data)
				release()
			})
		}
		d.Maintain()
	}
	wg.Wait()
	for _, s := range all {
		if s.err != nil {
			t.Fatal(s.err)
		}
		again := New(Options{})
		if err := again.Restore(&s.data); err != nil {
			t.Fatal(err)
		}
		for i := int(s.index) - 1; i < len(log); i++ {
			applyEntry(again, i+2, &log[i])
		}
		_, want := d.Hash()
		if index, got := again.Hash(); got != want || int(index) != len(log)+1 {
			t.Fatalf("snapshot of %d: hash %x at %d, want %x", s.index, got, index, want)
		}
		again.Close()
	}
}

// Readers see a state that was applied, while entries are, and while a snapshot
// replaces it.
func TestConcurrentReaders(t *testing.T) {
	d := start(t)
	d.apply(EncodeGrant(nil, 7, time.Hour))
	var snapshot bytes.Buffer
	write, release := d.Snapshot()
	if err := write(&snapshot); err != nil {
		t.Fatal(err)
	}
	release()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	read := func(f func(v View)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				v := d.View()
				f(v)
				v.Close()
			}
		})
	}
	read(func(v View) {
		res, err := v.Range(&kv.Range{Key: []byte{0}, End: []byte{0}})
		if err != nil || len(res.KVs)%2 != 0 || res.Time < 1 {
			t.Errorf("%d keys, time %d, %v", len(res.KVs), res.Time, err)
		}
		d.Get([]byte("a"))
	})
	read(func(v View) {
		if l, err := v.TimeToLive(7, true); err != nil || len(l.Keys)%2 != 0 {
			t.Errorf("keys %s, %v", l.Keys, err)
		}
		v.Leases()
		v.Members()
		v.Settings()
	})
	read(func(v View) {
		res, err := v.Txn(&kv.Txn{
			Compare: []kv.Compare{{Key: []byte("a"), Target: kv.CompareVersion, Relation: kv.Greater}},
			Success: []kv.Op{{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("b")}}},
			Failure: []kv.Op{{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("b")}}},
		})
		if err != nil || res.Succeeded != (len(res.Ops[0].Range.KVs) == 1) {
			t.Errorf("%+v, %v", res, err)
		}
		d.Status()
		d.Hash()
		d.Due(math.MaxInt32, 10)
		d.NextDeadline()
	})
	both := func(kind kv.OpKind) []byte {
		ops := []kv.Op{{Kind: kind, Key: []byte("a")}, {Kind: kind, Key: []byte("b")}}
		for i := range ops {
			if kind == kv.OpPut {
				ops[i].Lease = 7
			}
		}
		return EncodeTxn(nil, &kv.Txn{Success: ops})
	}
	_, replaced := d.Watch([]byte("a"), nil)
	for i := range 300 {
		if err, failed := d.apply(both([]kv.OpKind{kv.OpPut, kv.OpDelete, kv.OpPut}[i%3])).(error); failed {
			t.Fatal(err)
		}
		d.Maintain()
		if i%100 == 99 {
			if err := d.Restore(bytes.NewReader(snapshot.Bytes())); err != nil {
				t.Fatal(err)
			}
			d.index = 2
		}
	}
	cancel()
	wg.Wait()
	select {
	case <-replaced:
	default:
		t.Fatal("watchers were not told that the state was replaced")
	}
}

func TestViewTxn(t *testing.T) {
	d := start(t)
	for i := range 250 {
		d.put(fmt.Sprintf("%04d", i), "x")
	}
	v := d.View()
	defer v.Close()
	if _, err := v.Txn(&kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("a")}}}); kv.CodeOf(err) != kv.InvalidArgument {
		t.Fatalf("a view was written to: %v", err)
	}
	all := kv.Compare{Key: []byte{0}, End: []byte{0}, Target: kv.CompareMod, Relation: kv.Less, Number: 252}
	for _, number := range []int64{252, 251, 150} {
		all.Number = number
		res, err := v.Txn(&kv.Txn{Compare: []kv.Compare{all}})
		if err != nil || res.Succeeded != (number == 252) || res.Revision != 251 {
			t.Fatalf("%d: %+v, %v", number, res, err)
		}
	}
	_, err := v.Txn(&kv.Txn{Success: []kv.Op{{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("a"), Revision: 252}}}})
	if !errors.Is(err, kv.ErrFutureRevision) {
		t.Fatal(err)
	}
}

// A backup becomes a new cluster: same keys, other members, index 1.
func TestBootstrapRestored(t *testing.T) {
	d := start(t)
	d.put("a", "1")
	d.apply(EncodeGrant(nil, 7, time.Hour))
	d.apply(request(1, 1, 1))
	d.change(MemberChange{AddMember, kv.Member{ID: 2}})
	d.change(MemberChange{RemoveMember, kv.Member{ID: 1}})
	d.restart()
	d.Bootstrap(99, []kv.Member{{ID: 5}, {ID: 4}})
	if s := d.Status(); s.Cluster != 99 || s.Applied != 1 || s.Revision != 3 || s.Keys != 2 {
		t.Fatalf("status %+v", s)
	}
	if m := d.Members(); len(m) != 2 || m[0].ID != 4 || d.Removed(1) || d.Cluster() != 99 {
		t.Fatalf("members %+v", m)
	}
	d.index = 1
	if r := d.put("b", "2"); r.Revision != 4 {
		t.Fatalf("revision %d", r.Revision)
	}
	if r, ok := d.apply(request(1, 1, 1)).(*kv.TxnResult); !ok || r.Revision != 5 {
		t.Fatal("requests of the old cluster are remembered")
	}
}

func TestRestoreRefuses(t *testing.T) {
	d := start(t)
	d.put("a", "1")
	d.apply(request(1, 1, 1))
	d.apply(EncodePiece(nil, UploadID{1}, 0, 10, []byte("abc")))
	d.apply(EncodeGrant(nil, 7, time.Hour))
	var good bytes.Buffer
	write, release := d.Snapshot()
	if err := write(&good); err != nil {
		t.Fatal(err)
	}
	release()
	_, before := d.Hash()
	newer := bytes.Clone(good.Bytes())
	newer[len(snapshotMagic)]++
	if err := d.Restore(bytes.NewReader(newer)); !errors.Is(err, kv.ErrUnsupported) {
		t.Fatalf("a newer format: %v", err)
	}
	for n := range good.Len() {
		if err := d.Restore(bytes.NewReader(good.Bytes()[:n])); err == nil {
			t.Fatalf("the first %d of %d bytes were taken for all", n, good.Len())
		}
	}
	if _, after := d.Hash(); after != before || d.put("b", "").Revision != 4 {
		t.Fatal("a failed restore changed the state")
	}
	full := errors.New("disk full")
	for n := range good.Len() {
		write, release := d.Snapshot()
		if err := write(&limitedWriter{n: n, err: full}); !errors.Is(err, full) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		release()
	}
}

type limitedWriter struct {
	n   int
	err error
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.n {
		n := w.n
		w.n = 0
		return n, w.err
	}
	w.n -= len(p)
	return len(p), nil
}

var _ io.Writer = (*limitedWriter)(nil)

// Nothing but the result is allocated for a single put.
func TestPutAllocatesOnce(t *testing.T) {
	d := start(t)
	command := EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("a"), Value: []byte("1")}}})
	commands, results := [][]byte{command}, make([]any, 1)
	apply := func(results []any) func() {
		return func() {
			d.index++
			d.Apply(d.index, 1, d.time, commands, results)
		}
	}
	apply(results)()
	if n := testing.AllocsPerRun(1000, apply(results)); n > 1 {
		t.Errorf("an answered put allocates %v times", n)
	}
	if n := testing.AllocsPerRun(1000, apply(nil)); n > 0 {
		t.Errorf("an unanswered put allocates %v times", n)
	}
}
