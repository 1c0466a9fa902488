package etcdfile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is a machine that is given one command after another.
type store struct {
	testing.TB
	*machine.Machine
	index uint64
	now   int64
}

func open(t testing.TB) *store {
	s := &store{t, machine.New(machine.Options{}), 1, 5000}
	s.Bootstrap(0xc1, []kv.Member{{ID: 0xa, Name: "one", PeerAddrs: []string{"http://h:1"}}, {ID: 0xb, Learner: true}})
	t.Cleanup(s.Close)
	return s
}

func (s *store) do(command []byte) {
	s.Helper()
	s.index++
	results := make([]any, 1)
	s.Apply(machine.Position{Index: s.index, Term: 3, Now: s.now}, [][]byte{command}, results)
	if err, failed := results[0].(error); failed {
		s.Fatal(err)
	}
}

func (s *store) txn(ops ...kv.Op) {
	s.Helper()
	s.do(machine.EncodeTxn(nil, &kv.Txn{Success: ops}))
}

func put(key, value string) kv.Op {
	return kv.Op{Kind: kv.OpPut, Key: []byte(key), Value: []byte(value)}
}

func del(key string) kv.Op { return kv.Op{Kind: kv.OpDelete, Key: []byte(key)} }

// written writes the file of a store, with a checksum behind it or not.
func written(t testing.TB, s *store, sum bool) string {
	t.Helper()
	img := s.Image()
	defer img.Close()
	img.Scratch = t.TempDir()
	f, err := Write(&img, Options{Version: "3.7.3"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if left, err := os.ReadDir(img.Scratch); err != nil || len(left) > 0 {
		t.Errorf("the file has a name: %v, %v", left, err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if sum {
		h := sha256.Sum256(data)
		data = append(data, h[:]...)
	}
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWriteAndOpen: the latest keys and the leases come back, and TTLs as
// leases.
func TestWriteAndOpen(t *testing.T) {
	s := open(t)
	s.do(machine.EncodeGrant(nil, 7, 90*time.Second))
	s.txn(put("a", "1"), put("b", "2"), put("gone", "3"))
	held := put("held", "")
	held.Lease = 7
	short := put("short", "x")
	short.TTL = 1500 * time.Millisecond
	s.txn(held, short, del("gone"))
	s.txn(put("a", "4"))
	s.now += 60_000
	s.do(machine.EncodeCompact(nil, 3))
	for _, sum := range []bool{true, false} {
		f, err := Open(written(t, s, sum))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range f.Len() {
			k, err := f.Key(i)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s=%s %d %d %d %x", k.Key, k.Value, k.CreateRevision, k.ModRevision, k.Version, int64(k.Lease)))
		}
		want := []string{"a=4 2 4 2 0", "b=2 2 2 1 0", "held= 3 3 1 7", fmt.Sprintf("short=x 3 3 1 %x", int64(TTLLease(6500)))}
		if !slices.Equal(got, want) || f.Revision != 4 || f.Version != "3.7.0" || f.AuthEnabled {
			t.Errorf("%q, revision %d, version %s", got, f.Revision, f.Version)
		}
		if i := f.Search([]byte("c")); i != 2 {
			t.Errorf("c is at %d", i)
		}
		l := f.Leases
		if len(l) != 2 || l[0].ID != 7 || l[0].TTL != 90*time.Second || l[0].Left != 30*time.Second || l[1].ID != TTLLease(6500) || l[1].TTL != time.Second {
			t.Errorf("leases %+v", l)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestBatches writes more than fits into one transaction of the file.
func TestBatches(t *testing.T) {
	s := open(t)
	value := string(make([]byte, 1000))
	n := 2*batchBytes/1000 + 10
	for i := 0; i < n; i += 100 {
		var ops []kv.Op
		for j := range 100 {
			ops = append(ops, put(fmt.Sprintf("%06d", i+j), value))
		}
		s.txn(ops...)
	}
	f, err := Open(written(t, s, true))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Len() < n {
		t.Errorf("%d keys of %d", f.Len(), n)
	}
}

// TestDamage: no damaged byte goes unnoticed, and what is no file is named.
func TestDamage(t *testing.T) {
	s := open(t)
	s.txn(put("a", "1"))
	path := written(t, s, true)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 100; at < len(good); at += len(good) / 37 {
		bad := bytes.Clone(good)
		bad[at] ^= 0x40
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := Open(path); !errors.Is(err, kv.ErrCorrupt) {
			t.Errorf("byte %d: %v, %v", at, f, err)
		}
	}
	for _, text := range []string{"", "no database", string(good[:32]), string(make([]byte, 4096))} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := Open(path); err == nil {
			t.Errorf("%.20q: %v", text, f)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestDamageWithoutChecksum damages the header and the beginning of every page
// of a file that has no checksum: that is an error or goes unnoticed, and no
// crash.
func TestDamageWithoutChecksum(t *testing.T) {
	s := open(t)
	for i := range 20 {
		s.txn(put(fmt.Sprint(i), strings.Repeat("v", 500)))
	}
	path := written(t, s, false)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	noticed := 0
	page := os.Getpagesize()
	for at := range good {
		if at%page >= 40 {
			continue
		}
		bad := bytes.Clone(good)
		bad[at] ^= 0x40
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := Open(path); err != nil {
			noticed++
		} else if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if noticed == 0 {
		t.Error("no damage was noticed")
	}
}

// TestScratch: a directory that is not there is an error, not a crash.
func TestScratch(t *testing.T) {
	s := open(t)
	img := s.Image()
	defer img.Close()
	img.Scratch = filepath.Join(t.TempDir(), "none")
	if f, err := Write(&img, Options{Version: "3.7.3"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, %v", f, err)
	}
}

// FuzzRecord reads any bytes as a record; what is understood is written and read
// to the same again.
func FuzzRecord(f *testing.F) {
	f.Add(appendRecord(nil, &kv.Event{KV: kv.KeyValue{Key: []byte("a"), Value: []byte("1"), CreateRevision: 2, ModRevision: 3, Version: 2, Lease: math.MaxInt64}}))
	f.Add([]byte{0x08, 1})
	f.Fuzz(func(t *testing.T, record []byte) {
		k, err := (&File{latest: []entry{{nil, record}}}).Key(0)
		if err != nil {
			return
		}
		again, err := (&File{latest: []entry{{nil, appendRecord(nil, &kv.Event{KV: k})}}}).Key(0)
		if err != nil || !bytes.Equal(k.Key, again.Key) || !bytes.Equal(k.Value, again.Value) {
			t.Fatalf("%+v, %+v, %v", k, again, err)
		}
		k.Key, k.Value, again.Key, again.Value = nil, nil, nil, nil
		if fmt.Sprint(k) != fmt.Sprint(again) {
			t.Fatalf("%+v instead of %+v", again, k)
		}
	})
}
