package memberfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/concord-kv/concord/internal/vfs"
)

var sample = File{ID: 0xfedcba9876543210, Name: "n1", Cluster: 1 << 63, Incarnation: 3, Founding: json.RawMessage(`{"phase":"founded","seq":2}`)}

func TestSaveAndLoad(t *testing.T) {
	mem := new(vfs.Mem)
	if err := mem.MkdirAll("/d"); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(mem, "/d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for _, want := range []File{{ID: 1}, sample} {
		if err := Save(mem, "/d", want); err != nil {
			t.Fatal(err)
		}
		got, err := Load(mem, "/d")
		var a, b bytes.Buffer
		if len(want.Founding) > 0 {
			json.Compact(&a, got.Founding)
			json.Compact(&b, want.Founding)
		}
		want.Format, want.Checksum, want.Founding, got.Founding = Format, got.Checksum, nil, nil
		if err != nil || !reflect.DeepEqual(got, want) || a.String() != b.String() {
			t.Errorf("got %+v %s, want %+v %s, %v", got, &a, want, &b, err)
		}
	}
	if err := Save(mem, "/d", File{}); err == nil {
		t.Error("saved a file without an id")
	}
}

func TestSaveOnDisk(t *testing.T) {
	dir := t.TempDir()
	if err := Save(vfs.OS(), dir, sample); err != nil {
		t.Fatal(err)
	}
	if f, err := Load(vfs.OS(), dir); err != nil || f.ID != sample.ID {
		t.Errorf("%+v, %v", f, err)
	}
	if names, err := vfs.OS().ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left %v, %v", names, err)
	}
}

// TestEveryFlippedBitIsFound: no flip gives a member another identity.
func TestEveryFlippedBitIsFound(t *testing.T) {
	sample := sample
	sample.Format = Format
	good, err := sample.encode()
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		var corrupt *CorruptError
		var format *FormatError // a flip in the format's digit
		if f, err := parse("x", bad); !errors.As(err, &corrupt) && !errors.As(err, &format) {
			t.Errorf("bit %d: %+v, %v", bit, f, err)
		}
	}
	for n := range good {
		if _, err := parse("x", good[:n]); err == nil {
			t.Errorf("accepted the first %d bytes", n)
		}
	}
}

func TestNewerFormatIsRefusedByName(t *testing.T) {
	var format *FormatError
	_, err := parse("/d/member.json", []byte(`{"format":7,"anything":[]}`))
	if !errors.As(err, &format) || format.Format != 7 || !strings.Contains(err.Error(), "/d/member.json has data format 7") {
		t.Errorf("got %v", err)
	}
}

func TestCheckCluster(t *testing.T) {
	if err := (File{}).CheckCluster("d", "the snapshot", 5); err != nil {
		t.Error(err)
	}
	if err := (File{Cluster: 5}).CheckCluster("d", "the snapshot", 5); err != nil {
		t.Error(err)
	}
	err := (File{Cluster: 0xaa}).CheckCluster("d", "the snapshot", 0xbb)
	var wrong *ClusterError
	if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "cluster aa, but the snapshot to cluster bb") {
		t.Errorf("got %v", err)
	}
}

// TestCrashLeavesOldOrNew cuts the power at every operation of Save.
func TestCrashLeavesOldOrNew(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	power := errors.New("power cut")
	for at := 0; ; at++ {
		mem := new(vfs.Mem)
		if err := mem.MkdirAll("/d"); err != nil {
			t.Fatal(err)
		}
		if err := Save(mem, "/d", File{ID: 1, Incarnation: 1}); err != nil {
			t.Fatal(err)
		}
		n := 0
		mem.Hook = func(vfs.Op) error {
			if n++; n > at {
				return power
			}
			return nil
		}
		err := Save(mem, "/d", File{ID: 1, Incarnation: 2})
		mem.Hook = nil
		mem.Crash(rng)
		f, lerr := Load(mem, "/d")
		if lerr != nil || f.Incarnation != 1 && f.Incarnation != 2 || err == nil && f.Incarnation != 2 {
			t.Fatalf("cut at %d: %+v, %v, saved: %v", at, f, lerr, err)
		}
		if err == nil {
			if at < 5 {
				t.Errorf("only %d operations", at)
			}
			return
		}
	}
}

func FuzzParse(f *testing.F) {
	b, _ := sample.encode()
	f.Add(b)
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := parse("x", b); err == nil {
			if again, err := got.encode(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%q became %q, %v", b, again, err)
			}
		}
	})
}
