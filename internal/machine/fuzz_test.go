package machine

import (
	"bufio"
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// FuzzCommand applies any bytes as a command. It is understood or refused by
// name; either way the state stays whole: it can be written and read back.
func FuzzCommand(f *testing.F) {
	c := newChance(1)
	for range 40 {
		f.Add(c.command(1))
	}
	f.Add(EncodeUpdateMember(nil, kv.Member{ID: 1, Name: "x"}))
	f.Add(EncodeAlarm(nil, kv.Alarm{Member: 1, Type: kv.AlarmNoSpace}, true))
	f.Add(EncodeDowngrade(nil, "3.6.0"))
	for range 10 {
		f.Add(c.asSomebody(c.accessCommand()))
	}
	f.Add(EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpDelete, PrevKV: true}}})) // of an empty key
	f.Add(AppendTrace(AppendCaller(EncodeGrant(nil, 9, time.Second), 0, &kv.Caller{User: "u", AuthRevision: 1}), []byte("trace")))
	f.Fuzz(func(t *testing.T, command []byte) {
		if got := TraceOf(command); len(got) > MaxTrace {
			t.Fatalf("a trace of %d bytes", len(got))
		}
		if len(command) > 18 && command[0] == byte(kindPiece) {
			d := decoder{data: command[18:]}
			if d.uint(); d.uint() > 1<<20 {
				return // spare the machine: such an upload is reserved at once
			}
		}
		m := New(Options{})
		m.Bootstrap(1, []kv.Member{{ID: 1}})
		m.Apply(Position{2, 1, 1}, [][]byte{
			EncodeGrant(nil, 3, time.Second),
			EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("k01"), Value: []byte("v"), Lease: 3, TTL: time.Second}}}),
		}, nil)
		before := m.header().Revision
		results := make([]any, 1)
		r := recovered(func() { m.Apply(Position{3, 1, 2000}, [][]byte{command}, results) })
		if r != nil {
			if _, ok := r.(*CommandError); !ok {
				panic(r)
			}
			m.Close()
			return
		}
		if _, failed := results[0].(error); failed && m.header().Revision != before {
			t.Fatal("a command that failed used a revision")
		}
		restored(t, m).Close()
	})
}

// FuzzTxn decodes any bytes as a transaction; what it makes of them is encoded
// and decoded to the same again.
func FuzzTxn(f *testing.F) {
	c := newChance(2)
	for range 40 {
		txn := c.valid()
		f.Add(EncodeTxn(nil, &txn))
	}
	f.Fuzz(func(t *testing.T, command []byte) {
		if len(command) < 2 {
			return
		}
		first, err := decodeTxn(command)
		if err != nil {
			return
		}
		again, err := decodeTxn(EncodeTxn(nil, first))
		if err != nil {
			t.Fatalf("%+v cannot be decoded: %v", first, err)
		}
		if diff := sameResult(first, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func decodeTxn(command []byte) (*kv.Txn, error) {
	d := decoder{data: command[2:]}
	t := &kv.Txn{}
	if kind(command[0]) == kindPut {
		t.Success = make([]kv.Op, 1)
		d.put(&t.Success[0])
	} else {
		t.ID = d.request(command[1] & hasRequest)
		d.branches(t, 1)
	}
	err := d.end()
	if d.lost {
		err = ErrUploadLost
	}
	return t, err
}

// FuzzResult decodes any bytes as a remembered result.
func FuzzResult(f *testing.F) {
	f.Add(string(encodeResult(nil, &kv.TxnResult{Ops: []kv.OpResult{
		{Kind: kv.OpPut, Prev: []kv.KeyValue{{Key: []byte("k"), Value: []byte("v"), Lease: 3, Expires: 7}}},
		{Kind: kv.OpRange, Range: &kv.RangeResult{Count: 9, More: true}},
		{Kind: kv.OpTxn, Txn: &kv.TxnResult{Succeeded: true, Ops: []kv.OpResult{{Kind: kv.OpDelete, Deleted: 3}}}},
	}})))
	f.Add(string(encodeTooLarge(nil, &kv.TxnResult{})))
	f.Fuzz(func(t *testing.T, data string) {
		r, err := decodeResult(data)
		if err != nil {
			if !errors.Is(err, kv.ErrCorrupt) && !errors.Is(err, kv.ErrRequestTooOld) {
				t.Fatal(err)
			}
			return
		}
		again, err := decodeResult(string(encodeResult(nil, r)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := sameResult(r, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzSections reads any bytes as the part of a snapshot before the keys. What
// is accepted is written and read to the same again.
func FuzzSections(f *testing.F) {
	c := newChance(3)
	d := start(f)
	for _, n := range []int{0, 30, 200} {
		log := c.log(n)
		for i := range log {
			d.index++
			d.time = max(d.time, log[i].now)
			d.Apply(Position{d.index, 99, d.time}, log[i].commands, nil)
		}
		f.Add(sections(f, d.Machine))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := New(Options{})
		defer m.Close()
		c, err := m.readSnapshot(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			if !errors.Is(err, kv.ErrCorrupt) && !errors.Is(err, kv.ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		c.keys = m.store.View()
		defer c.keys.Close()
		var first, second bytes.Buffer
		if err := c.write(&first); err != nil {
			t.Fatal(err)
		}
		again, err := m.readSnapshot(bufio.NewReader(bytes.NewReader(first.Bytes())))
		if err != nil {
			t.Fatal(err)
		}
		again.keys = c.keys
		if err := again.write(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("written twice and not the same: %v", err)
		}
	})
}
