package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

var (
	operations  = flag.Int("operations", 3000, "how many operations each random test makes")
	differences = flag.Int("differences", 1, "after how many differences a random test stops")
	seed        = flag.Uint64("seed", 0, "the seed of random tests; 0 takes one from the clock")
)

// history is how many operations are shown at a difference.
const history = 25

// runner makes random operations on a pair.
type runner struct {
	*generator
	*pair
	tb      testing.TB
	streams []*watchPair
	last    []string
	differ  int
	// past is when the last watch from a given revision was made.
	past   time.Time
	counts map[string]int
}

func TestRandomOneMember(t *testing.T) { testRandom(t, 1) }

func TestRandomThreeMembers(t *testing.T) { testRandom(t, 3) }

func testRandom(t *testing.T, members int) {
	from := *seed
	if from == 0 {
		from = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d -operations %d", from, *operations)
	r := &runner{
		generator: &generator{Rand: rand.New(rand.NewPCG(from, 0)), revision: 1, serializable: members == 1},
		pair:      newPair(t, members), tb: t, counts: map[string]int{},
	}
	started := time.Now()
	for i := range *operations {
		if r.step(); r.differ >= *differences {
			t.Fatalf("operation %d of seed %d differs; the operations before:\n%s", i, from, strings.Join(r.last, "\n"))
		}
	}
	r.settle()
	t.Logf("%d operations in %v, revision %d: %v", *operations, time.Since(started).Round(time.Second), r.revision, r.counts)
}

// step makes one operation.
func (r *runner) step() {
	switch n := r.IntN(1000); {
	case n < 300:
		r.ask(r.rangeRequest())
	case n < 340:
		q := r.streamRequest()
		r.compare("RangeStream", q, rangeStream(q))
	case n < 580:
		r.ask(r.put())
	case n < 670:
		r.ask(r.deleteRange())
	case n < 885:
		r.ask(r.txn(2))
	case n < 890:
		r.sync() // etcd reads the key before an event only when it sends it
		r.ask(r.compaction())
	case n < 940:
		r.ask(r.leaseRequest())
	case n < 970:
		r.watch()
	default:
		r.settle()
	}
}

func (r *runner) ask(req proto.Message) {
	r.compare(string(req.ProtoReflect().Descriptor().Name()), req, callOf(req))
}

// compare makes a call to both, learns from etcd's answer and returns it.
func (r *runner) compare(name string, req proto.Message, do call) answer {
	r.note(name + " " + prototext.MarshalOptions{}.Format(req))
	etcd, concord := r.both(do)
	if !equal(etcd, concord) {
		r.differ++
		r.tb.Errorf("%s %s\n   etcd: %v\nconcord: %v", name, prototext.MarshalOptions{}.Format(req), etcd, concord)
		return etcd
	}
	if etcd.err != nil {
		r.counts[name+" errors"]++
		return etcd
	}
	r.counts[name]++
	if h, ok := etcd.msg.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		r.revision = max(r.revision, h.GetHeader().GetRevision())
	}
	if c, ok := req.(*pb.CompactionRequest); ok {
		r.compacted = c.Revision
	}
	return etcd
}

func (r *runner) note(what string) {
	if len(r.last) == history {
		r.last = r.last[1:]
	}
	r.last = append(r.last, fmt.Sprint(r.revision, ": ", what))
}
