package lockpb_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/concord-kv/concord/internal/lockpb"
)

// TestFiles holds the descriptors and the .proto files of api/ to each other,
// both ways.
func TestFiles(t *testing.T) {
	s := lockpb.New()
	for path, d := range map[string]protoreflect.ServiceDescriptor{"lock.proto": s.Lock, "election.proto": s.Election} {
		data, err := os.ReadFile("../../api/" + path)
		if err != nil {
			t.Fatal(err)
		}
		file, lines := d.ParentFile(), strings.Join(strings.Fields(string(data)), " ")
		fields, found := 0, 0
		for i := range file.Messages().Len() {
			m := file.Messages().Get(i)
			text := section(t, lines, "message "+string(m.Name())+" {")
			for j := range m.Fields().Len() {
				f := m.Fields().Get(j)
				kind := f.Kind().String()
				if f.Message() != nil {
					kind = strings.TrimPrefix(string(f.Message().FullName()), string(file.Package())+".")
				}
				if want := fmt.Sprintf("%s %s = %d;", kind, f.Name(), f.Number()); !strings.Contains(text, want) {
					t.Errorf("%s: %s has no %q", path, m.Name(), want)
				}
				fields++
			}
			found += strings.Count(text, " = ")
		}
		if found != fields || strings.Count(lines, "message ") != file.Messages().Len() {
			t.Errorf("%s has %d fields, the descriptor %d", path, found, fields)
		}
		for i := range d.Methods().Len() {
			m := d.Methods().Get(i)
			stream := ""
			if m.IsStreamingServer() {
				stream = "stream "
			}
			want := fmt.Sprintf(`rpc %s(%s) returns (%s%s) { option (google.api.http) = { post: %q body: "*" }; }`,
				m.Name(), m.Input().Name(), stream, m.Output().Name(), lockpb.Route(m))
			if !strings.Contains(lines, want) {
				t.Errorf("%s has no %s", path, want)
			}
		}
	}
}

// section is what stands between start and the brace that closes it.
func section(t *testing.T, text, start string) string {
	t.Helper()
	_, text, ok := strings.Cut(text, start)
	if !ok {
		t.Errorf("there is no %q", start)
	}
	text, _, _ = strings.Cut(text, "}")
	return text
}

// TestUnregistered: a program that links etcd's own types must not panic.
func TestUnregistered(t *testing.T) {
	s := lockpb.New()
	for _, d := range []protoreflect.ServiceDescriptor{s.Lock, s.Election} {
		if _, err := protoregistry.GlobalFiles.FindDescriptorByName(d.FullName()); err == nil {
			t.Errorf("%s is registered", d.FullName())
		}
		if got, err := s.FindDescriptorByName(d.FullName()); err != nil || got != protoreflect.Descriptor(d) {
			t.Errorf("%s: %v, %v", d.FullName(), got, err)
		}
		if _, err := s.FindFileByPath(d.ParentFile().Path()); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.FindDescriptorByName("etcdserverpb.KV"); err != nil {
		t.Error(err)
	}
	if _, err := s.FindFileByPath("nothing.proto"); err == nil {
		t.Error("a file that is not there was found")
	}
}

func TestMessage(t *testing.T) {
	m := lockpb.New().Election.Methods().ByName("Proclaim").Input()
	key := lockpb.NewMessage(m.Fields().ByName("leader").Message()).With("rev", int64(7)).With("key", []byte("k"))
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(lockpb.NewMessage(m).With("leader", key).With("value", []byte("v")).Interface())
	if err != nil {
		t.Fatal(err)
	}
	if want := "\x0a\x05\x12\x01k\x18\x07\x12\x01v"; string(text) != want {
		t.Errorf("%q, want %q", text, want)
	}
	back := lockpb.NewMessage(m)
	if _, ok := back.Sub("leader"); ok {
		t.Error("an empty message has a leader")
	}
	if err := proto.Unmarshal(text, back.Interface()); err != nil {
		t.Fatal(err)
	}
	if leader, ok := back.Sub("leader"); !ok || leader.Int64("rev") != 7 || string(leader.Bytes("key")) != "k" {
		t.Errorf("%v", back)
	}
}
