package machine

import (
	"bytes"
	"testing"

	"github.com/concord-kv/concord/kv"
)

// largeTxn puts values of which some are to be staged.
func largeTxn() (txn kv.Txn, big []byte) {
	big = make([]byte, 5*1000+17)
	for i := range big {
		big[i] = byte(i * 7 / 3)
	}
	return kv.Txn{
		Success: []kv.Op{
			{Kind: kv.OpPut, Key: []byte("big"), Value: big},
			{Kind: kv.OpPut, Key: []byte("small"), Value: []byte("s")},
			{Kind: kv.OpTxn, Txn: &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("nested"), Value: big[:2000]}}}},
		},
		Failure: []kv.Op{{Kind: kv.OpPut, Key: []byte("failure"), Value: big[:1500]}},
		ID:      kv.RequestID{Client: [16]byte{1}, Seq: 1},
	}, big
}

func TestUpload(t *testing.T) {
	d := start(t)
	txn, big := largeTxn()
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
		if _, ok := d.apply(EncodePiece(nil, Piece{id, int64(at), int64(len(value))}, part)).(*kv.Header); !ok {
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
}

func TestUploadExpires(t *testing.T) {
	d := start(t)
	send := func(at int64) {
		if _, ok := d.apply(EncodePiece(nil, Piece{UploadID{9}, at, 10}, []byte("a"))).(*kv.Header); !ok {
			t.Fatalf("piece at %d refused", at)
		}
	}
	send(0)
	d.time += uploadAge - 1
	send(5)
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
		return d.apply(EncodePiece(nil, Piece{UploadID{id}, offset, total}, make([]byte, n)))
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
		d.apply(EncodePiece(nil, Piece{UploadID{1, byte(i), byte(i >> 8)}, 0, 2}, make([]byte, 1)))
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
